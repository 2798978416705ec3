//! The command line: what was asked for, and how the process stands in the system while it does it.
//!
//! [`parse`] makes a [`Command`] of the arguments, or an [`Exit`]. [`launcher::start`] makes the daemon's process, [`Line`] tells
//! its caller how it is, [`Signals`] waits for the end, [`logging`] says where messages go. Nothing here mounts or copies.
//!
//! Exit codes are those of mount(8), because mount(8) runs this program for `mount -t fuse.kcopyfs`.
//!
//! # The life of the process, in the order that loses nothing
//! 1. Arguments are read: paths become absolute while the directory is still the caller's.
//! 2. [`launcher::start`] forks: there is one thread yet.
//! 3. [`Signals::block`]: every later thread inherits the mask, so that a signal finds the one who waits for it.
//! 4. The tree is mounted and answers. [`Line::ready`] lets the caller go, or stay with us.
//! 5. [`Signals::wait`], until a signal or the end of the mount.
//! 6. What can be ended is ended, the tree is unmounted, and [`Line::end`] leaves the rest to the kernel.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::error::ErrorKind as ClapKind;
use clap::{CommandFactory, FromArgMatches, Parser};

use crate::error::Error;

mod group;
pub mod launcher;
pub mod limits;
pub mod logging;
pub mod notify;
mod options;
mod signals;
mod status_pipe;

pub use launcher::Role;
pub use options::{Io, Opt, Options, StateDir, options};
pub use signals::{Event, Signals, Waker};
pub use status_pipe::Line;

/// The name in messages, in the log and in /proc/mounts.
pub const NAME: &str = "kcopyfs";

/// The exit code of mount(8) for arguments that are wrong.
pub const EXIT_USAGE: u8 = 1;

/// The exit code of mount(8) for a mount that failed.
pub const EXIT_MOUNT: u8 = 32;

/// What was asked for.
#[derive(Debug, PartialEq, Eq)]
pub enum Command {
    /// Mount the control tree and serve it.
    Mount(Mount),
    /// Show what it does on scratch images.
    Demo,
}

/// A control tree to be mounted.
#[derive(Debug, PartialEq, Eq)]
pub struct Mount {
    /// Stay in the foreground.
    pub foreground: bool,
    /// What `-o` says.
    pub options: Options,
    /// The first column of /proc/mounts; means nothing else.
    pub source: String,
    /// Where, as an absolute path. It is not looked at here: a dead mount there could not be.
    pub mountpoint: PathBuf,
}

/// How the process ends: a code for mount(8), and a text for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    /// 0, [`EXIT_USAGE`] or [`EXIT_MOUNT`].
    pub code: u8,
    /// To be said: on standard output with code 0, else on standard error.
    pub text: String,
}

impl Exit {
    /// The end of a mount that failed.
    pub fn mount(error: &Error) -> Self {
        Self { code: EXIT_MOUNT, text: error.to_string() }
    }

    /// The end for arguments that are wrong.
    pub fn usage(text: impl Into<String>) -> Self {
        Self { code: EXIT_USAGE, text: text.into() }
    }

    /// Says the text where it belongs. A caller without that stream misses it; there is nobody else to tell.
    pub fn say(&self) {
        use std::io::Write as _;
        let text = self.text.trim_end();
        match (self.code, text) {
            (_, "") => {}
            (0, _) => _ = writeln!(std::io::stdout(), "{text}"),
            _ => logging::say(log::Level::Error, text),
        }
    }
}

/// Block-copy jobs as files: mounts a control tree where writing a line starts a copy
#[derive(Debug, Parser)]
#[command(
    name = NAME,
    version,
    allow_missing_positional = true,
    override_usage = "kcopyfs [-f] [-o OPT[,OPT...]] [SOURCE] MOUNTPOINT\n       kcopyfs demo"
)]
struct Args {
    /// Stay in the foreground, log to standard error (`RUST_LOG` sets how much)
    #[arg(short = 'f')]
    foreground: bool,

    /// Options, see below; may be given several times
    #[arg(short = 'o', value_name = "OPT[,OPT...]")]
    options: Vec<OsString>,

    /// A name for the first column of /proc/mounts
    source: Option<OsString>,

    /// The directory to mount at; `demo` as the only argument shows it all on scratch images
    mountpoint: OsString,
}

/// The definition of the command line, with the options' table: for --help, man page and completion.
pub fn command() -> clap::Command {
    Args::command().after_help(options::help())
}

/// Reads the arguments, the program's name first.
///
/// # Errors
/// The [`Exit`] that is due: code 0 with the text that `--help` or `--version` asks for, else [`EXIT_USAGE`].
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Command, Exit> {
    let mut args: Vec<OsString> = args.into_iter().collect();
    if args.len() == 2 && args[1] == "demo" {
        return Ok(Command::Demo);
    }
    let fake = is_helper(&args) && drop_helper_flags(&mut args);
    let matches = command().try_get_matches_from(args).map_err(|error| clap_exit(&error))?;
    let args = Args::from_arg_matches(&matches).map_err(|error| clap_exit(&error))?;
    let options = Options::parse(&args.options).map_err(|error| Exit::usage(error.to_string()))?;
    let source = args.source.map_or_else(|| NAME.to_owned(), |source| source.to_string_lossy().into_owned());
    let mountpoint = std::path::absolute(Path::new(&args.mountpoint)).map_err(|error| {
        Exit::usage(format!("mount point {}: {error}; name a directory", args.mountpoint.display()))
    })?;
    if fake {
        return Err(Exit { code: 0, text: String::new() });
    }
    Ok(Command::Mount(Mount { foreground: args.foreground, options, source, mountpoint }))
}

/// Whether mount(8) runs us under its own name for us, such as `/sbin/mount.fuse.kcopyfs`.
fn is_helper(args: &[OsString]) -> bool {
    let name = args.first().and_then(|program| Path::new(program).file_name());
    name.is_some_and(|name| name.as_encoded_bytes().starts_with(b"mount."))
}

/// Takes out what mount(8) gives to every helper: `SOURCE DIRECTORY [-sfnv] [-N NAMESPACE] [-o OPTIONS] [-t TYPE]`. Gives
/// whether `-f` was there, which means that nothing is to be mounted.
fn drop_helper_flags(args: &mut Vec<OsString>) -> bool {
    let mut fake = false;
    let mut rest = std::mem::take(args).into_iter();
    args.extend(rest.next());
    while let Some(arg) = rest.next() {
        match arg.as_encoded_bytes() {
            b"-N" | b"-t" => _ = rest.next(),
            b"-o" => args.extend([Some(arg), rest.next()].into_iter().flatten()),
            [b'-', flags @ ..] if !flags.is_empty() && flags.iter().all(|flag| b"sfnv".contains(flag)) => {
                fake |= flags.contains(&b'f');
            }
            _ => args.push(arg),
        }
    }
    fake
}

/// clap's own ends, with the exit codes of mount(8) and our name before the message.
fn clap_exit(error: &clap::Error) -> Exit {
    let text = error.render().to_string();
    match error.kind() {
        ClapKind::DisplayHelp | ClapKind::DisplayVersion => Exit { code: 0, text },
        _ => Exit::usage(text.strip_prefix("error: ").unwrap_or(&text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(args: &[&str]) -> Result<Command, Exit> {
        parse(std::iter::once("kcopyfs").chain(args.iter().copied()).map(OsString::from))
    }

    fn mount(args: &[&str]) -> Mount {
        match run(args) {
            Ok(Command::Mount(mount)) => mount,
            other => panic!("{args:?}: {other:?}"),
        }
    }

    #[test]
    fn the_definition_holds_together() {
        command().debug_assert();
    }

    #[test]
    fn a_mountpoint_is_enough() {
        let mount = mount(&["/run/k"]);
        assert_eq!((mount.foreground, mount.source.as_str()), (false, "kcopyfs"));
        assert_eq!((mount.mountpoint, mount.options), (PathBuf::from("/run/k"), Options::default()));
    }

    #[test]
    fn mount_8_calls_it_like_this() {
        let mount = mount(&["none", "/run/k", "-o", "rw,pages=256,noauto,x-systemd.automount,dev,suid"]);
        assert_eq!((mount.source.as_str(), mount.options.pages), ("none", 256));
    }

    #[test]
    fn a_helper_of_mount_8_gets_flags_too() {
        let helper = |args: &[&str]| {
            parse(std::iter::once("/sbin/mount.fuse.kcopyfs").chain(args.iter().copied()).map(OsString::from))
        };
        for flags in [&[][..], &["-v"], &["-sn"], &["-v", "-N", "/proc/1/ns/mnt", "-t", "fuse.kcopyfs"]] {
            let args = [&["none", "/run/k"][..], flags, &["-o", "rw,pages=256"]].concat();
            match helper(&args) {
                Ok(Command::Mount(mount)) => {
                    assert!(!mount.foreground && mount.options.pages == 256, "{args:?}: {mount:?}");
                    assert_eq!((mount.source.as_str(), mount.mountpoint), ("none", PathBuf::from("/run/k")));
                }
                other => panic!("{args:?}: {other:?}"),
            }
        }
        // A dry run mounts nothing, and finds what is wrong all the same.
        let end = |args: &[&str]| helper(args).unwrap_err();
        assert_eq!(end(&["none", "/run/k", "-f", "-o", "rw"]), Exit { code: 0, text: String::new() });
        assert_eq!(end(&["none", "/run/k", "-fv", "-o", "page=1"]).code, EXIT_USAGE);
        assert_eq!(end(&["none", "/run/k", "-x"]).code, EXIT_USAGE);
        assert_eq!(run(&["none", "/run/k", "-v"]).unwrap_err().code, EXIT_USAGE, "by its own name it is no helper");
    }

    #[test]
    fn options_come_anywhere_and_often() {
        let mount = mount(&["-f", "-opages=512", "/run/k", "-o", "pages=1024,subjobs=2"]);
        assert!(mount.foreground);
        assert_eq!((mount.options.pages, mount.options.subjobs), (1024, Some(2)));
    }

    #[test]
    fn relative_paths_are_of_the_callers_directory() {
        let here = std::env::current_dir().unwrap();
        assert_eq!(mount(&["./demo"]).mountpoint, here.join("demo"));
        assert_eq!(mount(&["-f", "demo"]).mountpoint, here.join("demo"));
        assert_eq!(mount(&["-ostate=s", "m"]).options.state, StateDir::Dir(here.join("s")));
    }

    #[test]
    fn demo_alone_is_the_demo() {
        assert_eq!(run(&["demo"]), Ok(Command::Demo));
    }

    #[test]
    fn wrong_arguments_end_with_1() {
        for args in [&[][..], &["-x", "/m"], &["a", "b", "c"], &["-o"], &["--nonsense"], &["-o", "page=1", "/m"], &[""]]
        {
            let exit = run(args).unwrap_err();
            assert_eq!(exit.code, EXIT_USAGE, "{args:?}");
            assert!(!exit.text.is_empty() && !exit.text.starts_with("error"), "{args:?}: {}", exit.text);
        }
    }

    #[test]
    fn help_and_version_end_with_0() {
        let help = run(&["--help"]).unwrap_err();
        assert_eq!(help.code, 0);
        assert!(help.text.contains("[SOURCE] MOUNTPOINT") && help.text.contains("kcopyfs demo"), "{}", help.text);
        for option in options() {
            assert!(help.text.contains(&option.usage()), "{}", option.name);
        }
        let version = run(&["--version"]).unwrap_err();
        assert_eq!((version.code, version.text.trim()), (0, concat!("kcopyfs ", env!("CARGO_PKG_VERSION"))));
    }
}
