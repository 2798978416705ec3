# Completion of kcopyfs for bash, made from the table of its options.
_kcopyfs() {
    local line=${COMP_LINE:0:COMP_POINT} last item value before
    COMPREPLY=()
    last=${line##*[[:blank:]]}
    before=${line%"$last"}
    before=${before%"${before##*[![:blank:]]}"}
    before=${before##*[[:blank:]]}
    if [[ $before == -o ]]; then
        compopt -o nospace
        item=${last##*,}
        value=${item#*=}
        case $item in
        *=*)
            case ${item%%=*} in
            subjobs) mapfile -t COMPREPLY < <(compgen -W 'auto' -- "$value") ;;
            state) mapfile -t COMPREPLY < <(compgen -d -W none -- "$value") ;;
            io) mapfile -t COMPREPLY < <(compgen -W 'auto uring threads' -- "$value") ;;
            gid) mapfile -t COMPREPLY < <(compgen -g -- "$value") ;;
            mode) mapfile -t COMPREPLY < <(compgen -W '0600 0640 0660' -- "$value") ;;
            esac
            ;;
        *)
            # The shell replaces what stands behind the last = of the list.
            mapfile -t COMPREPLY < <(compgen -P "${2%"$item"}" -W 'pages= client_pages= subjob_kb= subjobs= throttle= state= keep= max_jobs= active= io= allow_other gid= mode=' -- "$item")
            ;;
        esac
    elif [[ $last == -* ]]; then
        mapfile -t COMPREPLY < <(compgen -W '-f -o --help --version' -- "$last")
    else
        compopt -o filenames
        mapfile -t COMPREPLY < <(compgen -d -- "$2")
        [[ $COMP_CWORD -eq 1 && demo == "$2"* ]] && COMPREPLY+=(demo)
    fi
}
complete -F _kcopyfs kcopyfs
