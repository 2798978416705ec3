//! kcopyfs: arguments in, exit code out. What happens between is the library's.

use std::process::ExitCode;

use kcopyfs::Result;
use kcopyfs::cli::{self, Command, Exit, Line, Mount, Role, Signals, launcher, logging};

mod daemon;
mod demo;
mod herald;

fn main() -> ExitCode {
    logging::end_at_panic();
    let exit = match cli::parse(std::env::args_os()) {
        Ok(Command::Mount(mount)) => serve(&mount),
        Ok(Command::Demo) => match demo::run() {
            Ok(()) => Exit { code: 0, text: String::new() },
            Err(error) => Exit::mount(&error),
        },
        Err(exit) => exit,
    };
    exit.say();
    ExitCode::from(exit.code)
}

/// Serves in the foreground or the background, as asked; the process that was called gets back here with its end.
fn serve(mount: &Mount) -> Exit {
    if mount.foreground {
        logging::to_stderr();
    }
    match launcher::start(mount.foreground) {
        Ok(Role::Daemon(mut line)) => {
            let result = run(mount, &mut line);
            line.end(&result.map_or_else(|error| Exit::mount(&error), |()| Exit { code: 0, text: String::new() }))
        }
        Ok(Role::Caller(exit)) => exit,
        Err(error) => Exit::mount(&error),
    }
}

/// The daemon's life: signals before the first thread, then the tree until its end.
fn run(mount: &Mount, line: &mut Line) -> Result<()> {
    let signals = Signals::block()?;
    if let Some(vain) = mount.options.vain() {
        // The caller still reads it, in the background too.
        logging::say(log::Level::Warn, vain);
    }
    if !mount.foreground {
        logging::to_syslog();
    }
    daemon::run(&mount.options, &mount.mountpoint, &mount.source, &signals, line)
}
