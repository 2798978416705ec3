//! kcopyfs: arguments in, exit code out. What happens between is the library's.

use std::process::ExitCode;

use kcopyfs::Result;
use kcopyfs::cli::{self, Background, Command, Exit, Mount, Role, Signals, logging};

mod daemon;
mod demo;

fn main() -> ExitCode {
    let exit = match cli::parse(std::env::args_os()) {
        Ok(Command::Mount(mount)) => return ExitCode::from(serve(&mount)),
        Ok(Command::Demo) => match demo::run() {
            Ok(()) => Exit { code: 0, text: String::new() },
            Err(error) => Exit::mount(&error),
        },
        Err(exit) => exit,
    };
    exit.say();
    ExitCode::from(exit.code)
}

/// Serves in the foreground or the background, as asked, and gives the exit code.
fn serve(mount: &Mount) -> u8 {
    let role = if mount.foreground { Ok(Role::Daemon(Background::foreground())) } else { Background::start() };
    let exit = match role {
        Ok(Role::Daemon(mut background)) => {
            return match run(mount, &mut background) {
                Ok(()) => 0,
                Err(error) => background.fail(&Exit::mount(&error)),
            };
        }
        Ok(Role::Caller(exit)) => exit,
        Err(error) => Exit::mount(&error),
    };
    exit.say();
    exit.code
}

/// The daemon's life: signals before the first thread, then the tree until its end.
fn run(mount: &Mount, background: &mut Background) -> Result<()> {
    let signals = Signals::block()?;
    if mount.foreground {
        logging::to_stderr();
    } else {
        logging::to_syslog();
    }
    daemon::run(&mount.options, &mount.mountpoint, &mount.source, &signals, background)
}
