_kcopyfs() {
    local i cur prev opts cmd
    COMPREPLY=()
    if [[ "${BASH_VERSINFO[0]}" -ge 4 ]]; then
        cur="$2"
    else
        cur="${COMP_WORDS[COMP_CWORD]}"
    fi
    prev="$3"
    cmd=""
    opts=""

    for i in "${COMP_WORDS[@]:0:COMP_CWORD}"
    do
        case "${cmd},${i}" in
            ",$1")
                cmd="kcopyfs"
                ;;
            *)
                ;;
        esac
    done

    case "${cmd}" in
        kcopyfs)
            opts="-f -o -h -V --help --version"
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 1 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                -o)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
    esac
}

if [[ "${BASH_VERSINFO[0]}" -eq 4 && "${BASH_VERSINFO[1]}" -ge 4 || "${BASH_VERSINFO[0]}" -gt 4 ]]; then
    complete -F _kcopyfs -o nosort -o bashdefault -o default kcopyfs
else
    complete -F _kcopyfs -o bashdefault -o default kcopyfs
fi

# The options of -o, the last of a list being completed.
_kcopyfs_with_options() {
    local cur=${COMP_WORDS[COMP_CWORD]} at=$((COMP_CWORD - 1)) head=
    # The shell takes = for a word of its own: pages=1,sub is four words after -o.
    while [[ ${COMP_WORDS[at]} == '=' ]]; do ((at -= 2)); done
    if [[ ${COMP_WORDS[at]} != -o ]]; then
        _kcopyfs "$@"
    elif [[ $at -eq $((COMP_CWORD - 1)) || $cur == *,* ]]; then
        [[ $cur == *,* ]] && head=${cur%,*},
        compopt -o nospace
        mapfile -t COMPREPLY < <(compgen -P "$head" -W 'pages= client_pages= subjob_kb= subjobs= throttle= state= keep= max_jobs= active= io= allow_other gid= mode=' -- "${cur##*,}")
    fi
}
complete -F _kcopyfs_with_options -o bashdefault -o default kcopyfs
