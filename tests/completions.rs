//! The completions, as they are used: a real interactive bash, zsh and fish at a terminal, with the Tab key.
//!
//! The shell's `kcopyfs` is a function that prints its arguments, so that what was completed is seen as the program would see it.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};
use std::{fs, thread};

use kcopyfs_support::need;

/// How long a shell may take for a line.
const LIMIT: Duration = Duration::from_secs(60);
/// What every shell says when it waits for a line.
const PROMPT: &str = "ready> ";

/// Somebody at a terminal.
struct Typist {
    shell: Child,
    keys: ChildStdin,
    screen: Receiver<Vec<u8>>,
    seen: String,
}

impl Typist {
    /// At a shell that is started by `command`, once it waits for a line.
    fn sit_down(command: &str, variables: &[(&str, OsString)]) -> Self {
        // a screen that shows every option
        let command = format!("stty rows 60 cols 200; exec {command}");
        let mut shell = Command::new("script")
            .args(["-qfec", &command, "/dev/null"])
            .envs(variables.iter().map(|(name, value)| (name, value)))
            .env("TERM", "vt100")
            .env("SHELL", "/bin/sh")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("script");
        let (keys, mut output) = (shell.stdin.take().unwrap(), shell.stdout.take().unwrap());
        let (sender, screen) = channel();
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length) = output.read(&mut buffer)
                && length > 0
                && sender.send(buffer[..length].to_vec()).is_ok()
            {}
        });
        let mut typist = Self { shell, keys, screen, seen: String::new() };
        typist.until(PROMPT);
        typist
    }

    fn press(&mut self, keys: &str) {
        self.seen.clear();
        self.keys.write_all(keys.as_bytes()).and_then(|()| self.keys.flush()).expect("type");
    }

    /// Waits until that is on the screen, since the last key.
    fn until(&mut self, text: &str) {
        let late = Instant::now() + LIMIT;
        while !self.seen.contains(text) {
            let more = self.screen.recv_timeout(late.saturating_duration_since(Instant::now()));
            let more = more.unwrap_or_else(|_| panic!("no {text:?} on the screen:\n{}", self.seen));
            self.seen.push_str(&String::from_utf8_lossy(&more));
        }
    }

    /// Types a line with Tab keys in it, and asserts what the program gets.
    fn gets(&mut self, line: &str, arguments: &[&str]) {
        self.press(&format!("{line}\r"));
        self.until("END");
        let expected = format!("<{}>", arguments.join("><"));
        // a slash at the end of a directory is the shell's business
        let plain = |text: &str| text.replace("/>", ">");
        let is_right = plain(&self.seen).contains(&plain(&format!("{expected}END")));
        assert!(is_right, "{line:?}: wanted {expected}\n{}", self.seen);
        if !self.seen.contains(&format!("END\r\n{PROMPT}")) {
            self.until(PROMPT);
        }
    }

    /// Types the beginning of a line with a Tab key at its end, and asserts what is offered, and what is not.
    fn is_offered(&mut self, line: &str, words: &[&str], never: &[&str]) {
        self.press(&format!("{line}\t"));
        for word in words {
            self.until(word);
        }
        for word in never {
            assert!(!self.seen.contains(word), "{line:?}: {word} is offered\n{}", self.seen);
        }
        // Not Ctrl-C: a shell may take its time to discard the line, and with it what is typed next.
        self.gets("\x15kcopyfs next", &["next"]);
    }
}

impl Drop for Typist {
    fn drop(&mut self) {
        let _ = self.shell.kill();
        let _ = self.shell.wait();
    }
}

fn completions() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib/completions")
}

/// What every shell completes alike.
fn assert_completes(mut typist: Typist, folder: &Path) {
    fs::create_dir(folder.join("mount-here")).unwrap();
    fs::write(folder.join("mount-file"), "").unwrap();
    let folder = folder.display().to_string();
    typist.gets("kcopyfs de\t", &["demo"]);
    typist.gets(&format!("kcopyfs {folder}/mo\t"), &[&format!("{folder}/mount-here/")]);
    typist.gets(&format!("kcopyfs none {folder}/mo\t"), &["none", &format!("{folder}/mount-here/")]);
    // a number is for the administrator to say
    typist.gets("kcopyfs -o pages=\t", &["-o", "pages="]);
    typist.gets("kcopyfs -o io=u\t", &["-o", "io=uring"]);
    typist.gets("kcopyfs -o gid=roo\t", &["-o", "gid=root"]);
    typist.gets("kcopyfs -o mode=066\t", &["-o", "mode=0660"]);
    typist.gets("kcopyfs -o state=no\t", &["-o", "state=none"]);
    typist.gets(&format!("kcopyfs -o state={folder}/mo\t"), &["-o", &format!("state={folder}/mount-here")]);
    typist.gets("kcopyfs -o allow_other,thr\t50,io=th\t", &["-o", "allow_other,throttle=50,io=threads"]);
    typist.gets("kcopyfs -f -o pages=1024,sub\t", &["-f", "-o", "pages=1024,subjob"]);
    typist.is_offered("kcopyfs -o io=", &["auto", "uring", "threads"], &["pages"]);
    typist.is_offered("kcopyfs -o pages=1024,", &["throttle", "allow_other", "state"], &["8192"]);
    typist.is_offered("kcopyfs -", &["-o", "--help", "--version"], &[]);
}

#[test]
fn bash_completes() {
    if !need::program("bash", "bash") || !need::program("script", "bsdutils") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let settings = folder.path().join("bashrc");
    let lines = format!(
        "bind 'set enable-bracketed-paste off'; bind 'set bell-style none'; bind 'set show-all-if-ambiguous on'\n\
         kcopyfs() {{ printf '<%s>' \"$@\"; echo END; }}\n\
         source {}/kcopyfs.bash\nPS1='{PROMPT}'\n",
        completions().display()
    );
    fs::write(&settings, lines).unwrap();
    let typist = Typist::sit_down(&format!("bash --rcfile {} -i", settings.display()), &[]);
    assert_completes(typist, folder.path());
}

#[test]
fn zsh_completes() {
    if !need::program("zsh", "zsh") || !need::program("script", "bsdutils") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let lines = format!(
        "fpath=({} $fpath); autoload -Uz compinit; compinit -u -d {}/dump\n\
         setopt no_beep\nkcopyfs() {{ printf '<%s>' \"$@\"; echo END; }}\nPS1='{PROMPT}'\n",
        completions().display(),
        folder.path().display()
    );
    fs::write(folder.path().join(".zshrc"), lines).unwrap();
    let typist = Typist::sit_down("zsh -d -i", &[("ZDOTDIR", folder.path().into())]);
    assert_completes(typist, folder.path());
}

#[test]
fn fish_completes() {
    if !need::program("fish", "fish") || !need::program("script", "bsdutils") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let settings = folder.path().join("settings.fish");
    let lines = format!(
        "set -g fish_greeting\nset -g fish_autosuggestion_enabled 0\nfunction fish_prompt; echo -n '{PROMPT}'; end\n\
         function kcopyfs; printf '<%s>' $argv; echo END; end\nsource {}/kcopyfs.fish\n",
        completions().display()
    );
    fs::write(&settings, lines).unwrap();
    let command = format!("fish --no-config --private -i -C 'source {}'", settings.display());
    let typist = Typist::sit_down(&command, &[("HOME", folder.path().into())]);
    assert_completes(typist, folder.path());
}
