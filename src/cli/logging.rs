//! Where messages go: to standard error in the foreground, to syslog in the background.
//!
//! `RUST_LOG` says how much, as `env_logger` reads it. In the background a message is one datagram to `/dev/log`, in
//! the form of RFC 3164 that syslogd and journald both read. Where nobody listens there, or does not keep up, it is
//! dropped: a log must not hold up a copy.

use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;

use env_logger::{Builder, Env, Target};
use log::Level;

use super::NAME;

/// How much is said where `RUST_LOG` says nothing: the life of jobs and all that goes wrong.
const DEFAULT_FILTER: &str = "warn,kcopyfs=info";

/// The socket of the system's log.
const SOCKET: &str = "/dev/log";

/// The facility `daemon` of syslog(3).
const FACILITY: u8 = 3 << 3;

/// Messages go to standard error from here on. The first call counts. The journal has a time stamp of its own, and reads a line's
/// severity from its beginning, as sd-daemon(3) has it.
pub fn to_stderr() {
    let mut builder = builder();
    if stderr_is_journal() {
        builder.format(|out, record| writeln!(out, "<{}>{}", severity(record.level()), record.args()));
    }
    let _ = builder.try_init();
}

/// Says a line on standard error for whoever started us, also where messages go elsewhere: the journal gets its severity.
///
/// A caller without that stream misses it; there is nobody else to tell.
pub fn say(level: Level, text: &str) {
    let severity = if stderr_is_journal() { format!("<{}>", severity(level)) } else { String::new() };
    let mut name = NAME;
    for line in text.lines() {
        let colon = if name.is_empty() { "" } else { ": " };
        let _ = writeln!(io::stderr(), "{severity}{name}{colon}{line}");
        // The rest of a long text begins as it stands; each line is an entry of the journal.
        name = "";
    }
}

fn stderr_is_journal() -> bool {
    is_journal(std::env::var("JOURNAL_STREAM").ok().as_deref())
}

/// Whether standard error is the journal's stream, of which the service manager says device and inode.
fn is_journal(stream: Option<&str>) -> bool {
    let (Some(stream), Ok(meta)) = (stream, std::fs::metadata("/proc/self/fd/2")) else { return false };
    stream == format!("{}:{}", meta.dev(), meta.ino())
}

/// Messages go to syslog from here on. The first call counts.
pub fn to_syslog() {
    // Without a socket there is nobody to tell, not even that.
    let Ok(sink) = Syslog::new() else { return };
    let pid = std::process::id();
    let _ = builder()
        .format(move |out, record| {
            write!(out, "<{}>{NAME}[{pid}]: {}", FACILITY | severity(record.level()), record.args())
        })
        .target(Target::Pipe(Box::new(sink)))
        .try_init();
}

/// A panic, in whatever thread, is told where messages go and ends the process: a daemon that is half dead keeps its jobs `running`
/// for ever, and one that is started again goes on from its records.
pub fn end_at_panic() {
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        let text = format!("this is a bug: thread `{}`: {panic}", thread.name().unwrap_or("?"));
        if log::log_enabled!(Level::Error) {
            log::error!("{text}");
        } else {
            // Nobody has said yet where messages go.
            let _ = writeln!(io::stderr(), "{NAME}: {text}");
        }
        std::process::abort();
    }));
}

fn builder() -> Builder {
    Builder::from_env(Env::default().default_filter_or(DEFAULT_FILTER))
}

/// The severity of syslog(3).
const fn severity(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

/// A writer of datagrams: one write is one message.
struct Syslog {
    socket: UnixDatagram,
}

impl Syslog {
    fn new() -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket })
    }
}

impl Write for Syslog {
    fn write(&mut self, message: &[u8]) -> io::Result<usize> {
        // By name each time: syslogd may have been started again. A message that cannot be sent is dropped, see above.
        let _ = self.socket.send_to(message, SOCKET);
        Ok(message.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    use super::*;

    /// Set for the process that is to panic.
    const PANIC: &str = "KCOPYFS_TEST_PANIC";

    #[test]
    fn a_panic_in_any_thread_is_logged_and_ends_the_process() {
        if std::env::var_os(PANIC).is_some() {
            to_stderr();
            end_at_panic();
            let thread = std::thread::Builder::new().name("kcopyd".into()).spawn(|| panic!("a page is lost")).unwrap();
            let _ = thread.join();
            // The thread alone has ended.
            std::process::exit(0);
        }
        let name = "cli::logging::tests::a_panic_in_any_thread_is_logged_and_ends_the_process";
        let program = std::env::current_exe().unwrap();
        let output = Command::new(program).args(["--exact", name, "--nocapture"]).env(PANIC, "1").output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.signal(), Some(6), "SIGABRT; {said}");
        assert!(said.contains("ERROR") && said.contains("kcopyd") && said.contains("a page is lost"), "{said}");
    }
}
