//! doc/RECIPES.md, done: ends that are served by other programs, and what becomes of them when kcopyfs is killed half way.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use kcopyfs_support::{Daemon, need, stamp, until};

const PROGRAM: &str = env!("CARGO_BIN_EXE_kcopyfs");
const SIZE: usize = 4 << 20;

/// A program that serves an image as a file, until it is dropped.
struct Server {
    child: Child,
    file: PathBuf,
    folder: Option<PathBuf>,
}

impl Server {
    /// nbdfuse in `folder`, over what `arguments` say.
    fn nbdfuse(folder: &Path, arguments: &[&str]) -> Self {
        fs::create_dir(folder).unwrap();
        Self::start(Command::new("nbdfuse").arg(folder).args(arguments), folder.join("nbd"), Some(folder.to_owned()))
    }

    fn start(command: &mut Command, file: PathBuf, folder: Option<PathBuf>) -> Self {
        let child = command.stdin(Stdio::null()).spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let server = Self { child, file, folder };
        until("the image as a file", || {
            fs::metadata(&server.file).is_ok_and(|meta| meta.len() == SIZE as u64).then_some(())
        });
        server
    }

    fn path(&self) -> String {
        self.file.display().to_string()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        match &self.folder {
            Some(folder) => _ = Command::new("fusermount3").arg("-u").arg(folder).status(),
            None => _ = Command::new("kill").arg(self.child.id().to_string()).status(),
        }
        let _ = self.child.wait();
    }
}

fn scratch() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("kcopyfs-recipes-").tempdir_in("/dev/shm").unwrap()
}

fn programs(all: &[(&str, &str)]) -> bool {
    need::root() && need::fuse() && all.iter().all(|(program, package)| need::program(program, package))
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn stamped() -> Vec<u8> {
    let mut data = vec![0; SIZE];
    stamp::fill(&mut data, 1, 0);
    data
}

fn daemon(option: &str) -> Daemon {
    Daemon::builder(PROGRAM).option("pages=512,client_pages=256,subjob_kb=64").option(option).start()
}

/// Copies, kills kcopyfs half way, and goes on as the page says.
fn assert_goes_on_when_told(option: &str, from: &str, to: &str, words: &str) {
    let mut daemon = daemon(option);
    let whole = daemon.job(&format!("from={from} to={to} verify {words}")).unwrap();
    let status = daemon.wait(whole);
    assert_eq!(status.state(), "done", "{status}");

    let id = daemon.job(&format!("from={from} to={to} verify speed_max=256K")).unwrap();
    until("a checkpoint", || (daemon.status(id).durable() > 0).then_some(()));
    daemon.kill9();
    daemon.restart();
    until("held", || (daemon.status(id).state() == "held").then_some(()));
    let status = daemon.status(id);
    assert!(status.error().is_some_and(|why| why.contains("may not be the same device")), "{status}");
    let durable = status.durable();
    assert!(durable > 0 && durable < SIZE as u64, "{status}");
    daemon.write(format!("jobs/{id}/speed_max"), "max\n").unwrap();
    daemon.control(id, "resume").unwrap();
    let status = daemon.wait(id);
    assert_eq!(status.state(), "done", "{status}");
    daemon.stop();
}

#[test]
fn a_compressed_image_is_copied_where_it_lies() {
    if !programs(&[("nbdfuse", "libnbd-bin"), ("nbdkit", "nbdkit"), ("xz", "xz-utils"), ("fusermount3", "fuse3")]) {
        return;
    }
    let scratch = scratch();
    let (image, disk) = (scratch.path().join("image"), scratch.path().join("disk"));
    fs::write(&image, stamped()).unwrap();
    File::create(&disk).unwrap().set_len(SIZE as u64).unwrap();
    run(Command::new("xz").arg("--block-size=1M").arg(&image));
    let compressed = format!("{}.xz", image.display());
    let arguments = ["--command", "nbdkit", "-s", "--filter=xz", "file", &compressed];
    let source = Server::nbdfuse(&scratch.path().join("mount"), &arguments);
    assert_goes_on_when_told("subjobs=auto", &source.path(), &disk.display().to_string(), "");
    assert!(fs::read(&disk).unwrap() == stamped());
}

#[test]
fn a_disk_of_another_machine_is_read_and_written_by_nbd() {
    if !programs(&[("nbdfuse", "libnbd-bin"), ("nbdkit", "nbdkit"), ("fusermount3", "fuse3")]) {
        return;
    }
    let scratch = scratch();
    let (image, disk, socket) =
        (scratch.path().join("image"), scratch.path().join("disk"), scratch.path().join("socket"));
    fs::write(&image, stamped()).unwrap();
    File::create(&disk).unwrap().set_len(SIZE as u64).unwrap();
    let mut there = Command::new("nbdkit").args(["-f", "--unix"]).arg(&socket).arg("file").arg(&disk).spawn().unwrap();
    until("the server", || socket.exists().then_some(()));
    let url = format!("nbd+unix:///?socket={}", socket.display());
    let dest = Server::nbdfuse(&scratch.path().join("mount"), &[&url]);
    assert_goes_on_when_told("subjobs=auto", &image.display().to_string(), &dest.path(), "");
    drop(dest);
    run(Command::new("kill").arg(there.id().to_string()));
    there.wait().unwrap();
    assert!(fs::read(&disk).unwrap() == stamped());
}

/// Whether a qcow2 image has what it should.
fn assert_image(image: &Path) {
    let raw = image.with_extension("raw");
    run(Command::new("qemu-img").args(["convert", "-f", "qcow2", "-O", "raw"]).arg(image).arg(&raw));
    assert!(fs::read(raw).unwrap() == stamped());
}

fn qcow2(folder: &Path) -> (PathBuf, PathBuf) {
    let (source, image) = (folder.join("source"), folder.join("image.qcow2"));
    File::create(&source).and_then(|mut file| file.write_all(&stamped())).unwrap();
    run(Command::new("qemu-img").args(["create", "-q", "-f", "qcow2"]).arg(&image).arg(SIZE.to_string()));
    (source, image)
}

#[test]
fn a_qcow2_image_is_written_through_qemu_nbd() {
    if !programs(&[("nbdfuse", "libnbd-bin"), ("qemu-nbd", "qemu-utils"), ("fusermount3", "fuse3")]) {
        return;
    }
    let scratch = scratch();
    let (source, image) = qcow2(scratch.path());
    let path = image.display().to_string();
    let arguments = ["--socket-activation", "qemu-nbd", "-f", "qcow2", &path];
    let dest = Server::nbdfuse(&scratch.path().join("mount"), &arguments);
    assert_goes_on_when_told("subjobs=auto", &source.display().to_string(), &dest.path(), "sparse");
    drop(dest);
    assert_image(&image);
}

#[test]
fn a_qcow2_image_is_written_through_the_fuse_export_one_write_at_a_time() {
    let qemu = [("qemu-storage-daemon", "qemu-utils"), ("qemu-img", "qemu-utils")];
    if !programs(&qemu) {
        return;
    }
    let scratch = scratch();
    let (source, image) = qcow2(scratch.path());
    let point = scratch.path().join("image.raw");
    File::create(&point).unwrap();
    let mut command = Command::new("qemu-storage-daemon");
    command
        .arg("--blockdev")
        .arg(format!("driver=file,node-name=file,filename={}", image.display()))
        .args(["--blockdev", "driver=qcow2,node-name=image,file=file", "--export"])
        .arg(format!("type=fuse,id=fuse,node-name=image,mountpoint={},writable=on", point.display()));
    let dest = Server::start(&mut command, point, None);
    assert_goes_on_when_told("subjobs=1", &source.display().to_string(), &dest.path(), "");
    drop(dest);
    assert_image(&image);
}
