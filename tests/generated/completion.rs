//! Completions for bash, zsh and fish, from the options of the command line.

use std::fmt::Write as _;

use kcopyfs::cli;

/// What may stand behind an option's `=`.
enum Values {
    /// It has none.
    None,
    /// A number: nothing is offered.
    Number,
    /// One of these words.
    Words(Vec<&'static str>),
    Groups,
    /// A directory, or `none`.
    State,
}

/// The modes that `mode=` is given for.
const MODES: [&str; 3] = ["0600", "0640", "0660"];

const OPTIONS: [(&str, &str); 4] = [
    ("-f", "stay in the foreground"),
    ("-o", "options, separated by commas"),
    ("--help", "show help"),
    ("--version", "show the version"),
];

fn options() -> impl Iterator<Item = (&'static str, &'static str, Values)> {
    cli::options().iter().map(|option| {
        let values = match option.value {
            None => Values::None,
            Some("DIR") => Values::State,
            Some("G") => Values::Groups,
            Some("M") => Values::Words(MODES.to_vec()),
            Some(words) if words.contains('|') => Values::Words(words.split('|').filter(|word| *word != "N").collect()),
            Some(_) => Values::Number,
        };
        (option.name, option.doc, values)
    })
}

/// An option as it is typed: with `=` where a value follows.
fn typed(name: &str, values: &Values) -> String {
    format!("{name}{}", if matches!(values, Values::None) { "" } else { "=" })
}

pub(crate) fn bash() -> String {
    let names: Vec<String> = options().map(|(name, _, values)| typed(name, &values)).collect();
    let mut cases = String::new();
    for (name, _, values) in options() {
        let words = match values {
            Values::None | Values::Number => continue,
            Values::Words(words) => format!("-W '{}' -- \"$value\"", words.join(" ")),
            Values::Groups => "-g -- \"$value\"".to_owned(),
            Values::State => "-d -W none -- \"$value\"".to_owned(),
        };
        _ = writeln!(cases, "            {name}) mapfile -t COMPREPLY < <(compgen {words}) ;;");
    }
    let flags: Vec<&str> = OPTIONS.iter().map(|(flag, _)| *flag).collect();
    format!(
        r#"# Completion of kcopyfs for bash, made from the table of its options.
_kcopyfs() {{
    local line=${{COMP_LINE:0:COMP_POINT}} last item value before
    COMPREPLY=()
    last=${{line##*[[:blank:]]}}
    before=${{line%"$last"}}
    before=${{before%"${{before##*[![:blank:]]}}"}}
    before=${{before##*[[:blank:]]}}
    if [[ $before == -o ]]; then
        compopt -o nospace
        item=${{last##*,}}
        value=${{item#*=}}
        case $item in
        *=*)
            case ${{item%%=*}} in
{cases}            esac
            ;;
        *)
            # The shell replaces what stands behind the last = of the list.
            mapfile -t COMPREPLY < <(compgen -P "${{2%"$item"}}" -W '{}' -- "$item")
            ;;
        esac
    elif [[ $last == -* ]]; then
        mapfile -t COMPREPLY < <(compgen -W '{}' -- "$last")
    else
        compopt -o filenames
        mapfile -t COMPREPLY < <(compgen -d -- "$2")
        [[ $COMP_CWORD -eq 1 && demo == "$2"* ]] && COMPREPLY+=(demo)
    fi
}}
complete -F _kcopyfs kcopyfs
"#,
        names.join(" "),
        flags.join(" ")
    )
}

pub(crate) fn zsh() -> String {
    let mut values = String::new();
    for (name, doc, what) in options() {
        let action = match &what {
            Values::None => String::new(),
            Values::Number => ":number: ".to_owned(),
            Values::Words(words) => format!(":value:({})", words.join(" ")),
            Values::Groups => ":group:_groups".to_owned(),
            Values::State => ":directory:_kcopyfs_state".to_owned(),
        };
        let doc = doc.replace('\'', "'\\''").replace('[', "\\[").replace(']', "\\]").replace(':', "\\:");
        _ = writeln!(values, "        '{name}[{doc}]{action}' \\");
    }
    let flags: Vec<String> = OPTIONS
        .iter()
        .map(|(flag, doc)| match *flag {
            "-o" => format!("'*-o[{doc}]:options:_kcopyfs_options'"),
            "-f" => format!("'-f[{doc}]'"),
            _ => format!("'(- *){flag}[{doc}]'"),
        })
        .collect();
    format!(
        r"#compdef kcopyfs
# Completion of kcopyfs for zsh, made from the table of its options.

_kcopyfs_state() {{
    _alternative 'words:word:(none)' 'directories:directory:_path_files -/'
}}

_kcopyfs_options() {{
    _values -s , option \
{values}        && return 0
}}

_kcopyfs_place() {{
    _alternative 'commands:command:(demo)' 'directories:mount point:_path_files -/'
}}

_arguments -S \
    {} \
    '1:mount point:_kcopyfs_place' \
    '2:mount point:_path_files -/'
",
        flags.join(" \\\n    ")
    )
}

pub(crate) fn fish() -> String {
    let (mut names, mut cases) = (String::new(), String::new());
    for (name, doc, values) in options() {
        let doc = doc.replace('\\', "\\\\").replace('\'', "\\'");
        _ = writeln!(names, "            printf '%s\\t%s\\n' \"$head\"'{}' '{doc}'", typed(name, &values));
        let list = match values {
            Values::None | Values::Number => continue,
            Values::Words(words) => format!("{{{}}}", words.join(",")),
            Values::Groups => "(string replace -r '\\t.*' '' -- (__fish_complete_groups))".to_owned(),
            Values::State => {
                "(printf none\\n; string replace -r '\\t.*' '' -- (__fish_complete_directories (string replace -r '^state=' '' -- $item)))".to_owned()
            }
        };
        _ = writeln!(cases, "        case '{name}=*'\n            printf '%s\\n' \"$head$key\"{list}");
    }
    format!(
        r#"# Completion of kcopyfs for fish, made from the table of its options.
function __kcopyfs_options
    set -l token (commandline -ct)
    set -l item (string replace -r '.*,' '' -- $token)
    set -l head (string replace -r '[^,]*$' '' -- $token)
    set -l key (string replace -r '=.*' '=' -- $item)
    switch "$item"
{cases}        case '*=*'
            return
        case '*'
{names}    end
end

function __kcopyfs_places
    if test (count (commandline -opc)) -eq 1
        printf 'demo\ttry it on scratch images\n'
    end
    __fish_complete_directories (commandline -ct) 'mount point'
end

complete -c kcopyfs -f -a '(__kcopyfs_places)'
complete -c kcopyfs -s f -d '{}'
complete -c kcopyfs -s o -x -a '(__kcopyfs_options)' -d '{}'
complete -c kcopyfs -l help -d '{}'
complete -c kcopyfs -l version -d '{}'
"#,
        OPTIONS[0].1, OPTIONS[1].1, OPTIONS[2].1, OPTIONS[3].1
    )
}
