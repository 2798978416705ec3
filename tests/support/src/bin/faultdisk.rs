//! A disk with faults for shell scripts: see `kcopyfs_support::control` for its commands.

use std::{
    env,
    error::Error,
    fs::{File, OpenOptions},
    io::{self, BufRead as _, BufReader, Write as _},
    os::unix::{fs::FileExt as _, process::CommandExt as _},
    path::Path,
    process::{Command, ExitCode, Stdio},
};

use kcopyfs_support::{
    FaultDisk,
    control::{self, number},
    faultdisk::log::Log,
};

const USAGE: &str = "\
faultdisk serve SOCKET SIZE [--block N] [--volatile] [--log FILE] [--file-only] [--background]
    serves a disk until `down`; prints its device; with --background it returns once the device is there
faultdisk ctl SOCKET COMMAND...     sends commands, prints an answer a line
faultdisk down SOCKET               takes the disk away; returns when it is gone
faultdisk replay LOG IMAGE N        writes what the first N entries of the log wrote
commands: rule read|write|flush LO HI err ERRNO|hang|delay MS|corrupt|drop|short N|misdirect TO [xN]
    clear release dead [ERRNO] revive powercut drop|keep N|random SEED size N mark TEXT parked N stat path";

fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    match run(&words) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("faultdisk: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(words: &[String]) -> Result<ExitCode, Box<dyn Error>> {
    let (verb, rest) = words.split_first().map_or(("", &[][..]), |(verb, rest)| (verb.as_str(), rest));
    match (verb, rest) {
        ("serve", [socket, size, options @ ..]) => {
            if options.iter().any(|word| word == "--background") {
                return background(words);
            }
            serve(Path::new(socket), number(size)?, options)?;
        }
        ("ctl", [socket, commands @ ..]) => {
            let answers = control::send(Path::new(socket), commands)?;
            print!("{answers}");
            if answers.lines().any(|answer| answer.starts_with("error")) {
                return Ok(ExitCode::FAILURE);
            }
        }
        ("down", [socket]) => {
            control::send(Path::new(socket), &["down".to_owned()])?;
        }
        ("replay", [log, image, prefix]) => {
            let image = OpenOptions::new().write(true).open(image)?;
            let prefix = usize::try_from(number(prefix)?)?;
            Log::open(File::open(log)?)?.replay(prefix, |offset, data| image.write_all_at(data, offset))?;
        }
        _ => {
            eprintln!("{USAGE}");
            return Ok(ExitCode::from(2));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn serve(socket: &Path, size: u64, options: &[String]) -> Result<(), Box<dyn Error>> {
    let mut builder = FaultDisk::builder(size);
    let mut options = options.iter();
    while let Some(option) = options.next() {
        let mut value = || options.next().ok_or_else(|| format!("{option} takes a value"));
        builder = match option.as_str() {
            "--block" => builder.block(u32::try_from(number(value()?)?)?),
            "--volatile" => builder.volatile(true),
            "--file-only" => builder.file_only(),
            "--log" => {
                let mut open = OpenOptions::new();
                builder.log_file(open.read(true).write(true).create(true).truncate(true).open(value()?)?)
            }
            _ => return Err(format!("{option}: no such option").into()),
        };
    }
    control::serve(builder, socket, |path| {
        println!("{}", path.display());
        // whoever reads it may wait for this line
        let _ = io::stdout().flush();
    })?;
    Ok(())
}

/// Starts the same command in the background, in a process group of its own, and waits for its first line.
fn background(words: &[String]) -> Result<ExitCode, Box<dyn Error>> {
    let mut server = Command::new(env::current_exe()?)
        .args(words.iter().filter(|word| *word != "--background"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .process_group(0)
        .spawn()?;
    let mut device = String::new();
    let stdout = server.stdout.take().ok_or("no pipe")?;
    BufReader::new(stdout).read_line(&mut device)?;
    if device.is_empty() {
        // it said why on stderr
        server.wait()?;
        return Ok(ExitCode::FAILURE);
    }
    print!("{device}");
    Ok(ExitCode::SUCCESS)
}
