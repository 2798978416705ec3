//! Nothing is left behind: not by a drop, not by a panic, not by a process that was killed in the middle of it.

use std::{
    env, fs,
    io::{BufRead as _, BufReader},
    os::unix::process::ExitStatusExt as _,
    panic::{self, AssertUnwindSafe},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use kcopyfs_support::{Fault, FaultDisk, LoopDevice, Op, direct::Direct, need, sweep};

/// Set in the child that [`a_killed_process_that_waits_for_its_own_disk_is_freed`] starts.
const CHILD: &str = "KCOPYFS_SUPPORT_CHILD";

/// The mounts and loop devices of process `pid`'s disks.
fn left_of(pid: u32) -> (Vec<PathBuf>, Vec<PathBuf>) {
    let source = format!("faultdisk:{pid}");
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mounts: Vec<_> = text
        .lines()
        .filter(|line| line.split(' ').any(|word| word == source))
        .map(|line| PathBuf::from(line.split(' ').nth(4).unwrap()))
        .collect();
    let devices = loops().into_iter().filter(|(_, file)| mounts.iter().any(|mount| file.starts_with(mount)));
    let devices = devices.map(|(device, _)| device).collect();
    (mounts, devices)
}

/// Every attached loop device and its file.
fn loops() -> Vec<(PathBuf, PathBuf)> {
    let devices = fs::read_dir("/sys/block").unwrap().flatten();
    devices
        .filter_map(|device| {
            let file = fs::read_to_string(device.path().join("loop/backing_file")).ok()?;
            Some((Path::new("/dev").join(device.file_name()), PathBuf::from(file.trim_end())))
        })
        .collect()
}

#[test]
fn drops_and_panics_leave_nothing() {
    if !need::fault_disk() {
        return;
    }
    // other tests of this file make their disks in processes of their own
    let pid = std::process::id();
    assert_eq!(left_of(pid), (vec![], vec![]));
    let mut seen = None;
    let result = panic::catch_unwind(AssertUnwindSafe(|| {
        let plain = LoopDevice::new(1 << 16, 512);
        let disk = FaultDisk::builder(1 << 20).volatile(true).start();
        let device = Direct::open(&disk.path()).unwrap();
        device.write(0, &[1; 4096]).unwrap();
        disk.rule(Op::Read, .., Fault::Hang);
        disk.rule(Op::Flush, .., Fault::Hang);
        let path = disk.path();
        let hung = thread::spawn(move || Direct::open(&path)?.read(0, 4096));
        disk.wait_parked(1);
        let (mounts, devices) = left_of(pid);
        assert_eq!((mounts.len(), devices), (1, vec![disk.path()]));
        seen = Some((mounts[0].clone(), plain.image(), hung));
        panic!("this panic is part of the test");
    }));
    assert!(result.is_err());
    let (mount, image, hung) = seen.unwrap();
    assert_eq!(hung.join().unwrap().unwrap_err().raw_os_error(), Some(libc::EIO));
    assert_eq!(left_of(pid), (vec![], vec![]));
    assert!(!mount.exists() && !image.exists());
    assert!(loops().iter().all(|(_, file)| !file.starts_with(&mount) && !file.starts_with(&image)));

    // again and again, each time as if it were the first
    for _ in 0..20 {
        let disk = FaultDisk::builder(1 << 16).start();
        Direct::open(&disk.path()).unwrap().read(0, 4096).unwrap();
    }
    assert_eq!(left_of(pid), (vec![], vec![]));
}

/// The first line that a child prints: the device it serves.
fn device_of(child: &mut Child) -> PathBuf {
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let device = lines.map(Result::unwrap).find(|line| line.starts_with("/dev/loop"));
    PathBuf::from(device.expect("a device"))
}

#[test]
fn a_killed_server_is_swept() {
    if !need::fault_disk() {
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let mut server = Command::new(env!("CARGO_BIN_EXE_faultdisk"))
        .arg("serve")
        .arg(scratch.path().join("socket"))
        .arg("1M")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let pid = server.id();
    let device = device_of(&mut server);
    assert_eq!(left_of(pid).1, std::slice::from_ref(&device));
    sweep();
    assert_eq!(left_of(pid).1, std::slice::from_ref(&device), "a live process's disk is not swept");
    server.kill().unwrap();
    server.wait().unwrap();
    // the loop device clears itself, the mount cannot; unless another test has swept it already
    let (mounts, devices) = left_of(pid);
    assert!(mounts.len() <= 1 && devices.is_empty(), "{mounts:?} {devices:?}");
    sweep();
    assert_eq!(left_of(pid), (vec![], vec![]));
}

#[test]
fn a_killed_process_that_waits_for_its_own_disk_is_freed() {
    const NAME: &str = "a_killed_process_that_waits_for_its_own_disk_is_freed";
    if !need::fault_disk() {
        return;
    }
    if env::var_os(CHILD).is_some() {
        let disk = FaultDisk::builder(1 << 20).start();
        disk.rule(Op::Read, .., Fault::Hang);
        let device = Direct::open(&disk.path()).unwrap();
        let path = disk.path();
        thread::scope(|scope| {
            let waiting = scope.spawn(|| disk.wait_parked(1));
            scope.spawn(|| device.read(0, 4096));
            waiting.join().unwrap();
            println!("\n{}", path.display());
            loop {
                thread::park();
            }
        });
    }
    let mut child = Command::new(env::current_exe().unwrap())
        .args([NAME, "--exact", "--nocapture"])
        .env(CHILD, "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let pid = child.id();
    let device = device_of(&mut child);
    assert_eq!(left_of(pid).1, [device]);
    child.kill().unwrap();
    // it cannot end by itself: its thread waits in the kernel for a server that is gone
    let until = Instant::now() + Duration::from_secs(10);
    let status = loop {
        // in vain until the threads that served have noticed the signal
        sweep();
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        assert!(Instant::now() < until, "process {pid} still waits for its disk");
        thread::sleep(Duration::from_millis(5));
    };
    assert_eq!(status.signal(), Some(libc::SIGKILL));
    assert_eq!(left_of(pid), (vec![], vec![]));
}
