# Completion of kcopyfs for fish, made from the table of its options.
function __kcopyfs_options
    set -l token (commandline -ct)
    set -l item (string replace -r '.*,' '' -- $token)
    set -l head (string replace -r '[^,]*$' '' -- $token)
    set -l key (string replace -r '=.*' '=' -- $item)
    switch "$item"
        case 'subjobs=*'
            printf '%s\n' "$head$key"{auto}
        case 'state=*'
            printf '%s\n' "$head$key"(printf none\n; string replace -r '\t.*' '' -- (__fish_complete_directories (string replace -r '^state=' '' -- $item)))
        case 'io=*'
            printf '%s\n' "$head$key"{auto,uring,threads}
        case 'gid=*'
            printf '%s\n' "$head$key"(string replace -r '\t.*' '' -- (__fish_complete_groups))
        case 'mode=*'
            printf '%s\n' "$head$key"{0600,0640,0660}
        case '*=*'
            return
        case '*'
            printf '%s\t%s\n' "$head"'pages=' 'pages of 4 KiB in the shared pool'
            printf '%s\t%s\n' "$head"'client_pages=' 'pages reserved for the client `default`, at most `pages`'
            printf '%s\t%s\n' "$head"'subjob_kb=' 'size of a sub-job in KiB, a power of two'
            printf '%s\t%s\n' "$head"'subjobs=' 'sub-jobs of one job in flight, 1 to 64; auto: what its devices are fastest with'
            printf '%s\t%s\n' "$head"'throttle=' 'percent of the time during which the engine does I/O'
            printf '%s\t%s\n' "$head"'state=' 'where jobs are kept, or `none`'
            printf '%s\t%s\n' "$head"'keep=' 'most ended jobs kept; the oldest are dismissed first'
            printf '%s\t%s\n' "$head"'max_jobs=' 'most jobs kept, live and ended'
            printf '%s\t%s\n' "$head"'active=' 'jobs that run at once; the others wait, in order'
            printf '%s\t%s\n' "$head"'io=' 'how data is moved; auto: io_uring, or threads where that is refused'
            printf '%s\t%s\n' "$head"'allow_other' 'other users may look, never write'
            printf '%s\t%s\n' "$head"'gid=' 'group of the writable files, by number or name; one that may write jobs/new is root'
            printf '%s\t%s\n' "$head"'mode=' 'mode of the writable files, octal, within 0664: who may write jobs/new is root'
    end
end

function __kcopyfs_places
    if test (count (commandline -opc)) -eq 1
        printf 'demo\ttry it on scratch images\n'
    end
    __fish_complete_directories (commandline -ct) 'mount point'
end

complete -c kcopyfs -f -a '(__kcopyfs_places)'
complete -c kcopyfs -s f -d 'stay in the foreground'
complete -c kcopyfs -s o -x -a '(__kcopyfs_options)' -d 'options, separated by commas'
complete -c kcopyfs -l help -d 'show help'
complete -c kcopyfs -l version -d 'show the version'
