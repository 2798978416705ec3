use std::time::Duration;

use super::*;

/// A sysfs and a udev database in a scratch directory, with a disk of number 8:0 and its partition 8:1.
struct World(tempfile::TempDir);

impl World {
    fn new(place: &str, attributes: &[(&str, &[u8])]) -> Self {
        let world = Self(tempfile::tempdir().unwrap());
        let disk = world.0.path().join("sys/devices").join(place);
        let name = disk.file_name().unwrap().to_str().unwrap().to_owned();
        let put = |path: PathBuf, bytes: &[u8]| {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        };
        put(disk.join("dev"), b"8:0\n");
        put(disk.join(format!("{name}1/partition")), b"1\n");
        put(disk.join(format!("{name}1/dev")), b"8:1\n");
        for (attribute, bytes) in attributes {
            put(disk.join(attribute), bytes);
        }
        let numbers = world.0.path().join("sys/dev/block");
        fs::create_dir_all(&numbers).unwrap();
        std::os::unix::fs::symlink(&disk, numbers.join("8:0")).unwrap();
        std::os::unix::fs::symlink(disk.join(format!("{name}1")), numbers.join("8:1")).unwrap();
        world
    }

    fn udev(self, text: &str) -> Self {
        let data = self.0.path().join("udev");
        fs::create_dir_all(&data).unwrap();
        fs::write(data.join("b8:0"), text).unwrap();
        self
    }

    fn card(&self, minor: u32) -> DeviceCard {
        let (sys, udev) = (self.0.path().join("sys"), self.0.path().join("udev"));
        block(&Roots { sys: &sys, udev: &udev }, libc::makedev(8, minor))
    }

    /// Model, serial, wwid, transport, rotational, port.
    fn told(&self, minor: u32) -> [String; 6] {
        let card = self.card(minor);
        let fields = card.fields().map(|(_, value)| value.map_or("-".to_owned(), String::from));
        let [_, model, serial, wwid, transport, rotational, _, port] = fields;
        [model, serial, wwid, transport, rotational, port]
    }
}

#[test]
fn a_sata_disk_is_told_in_full_where_udev_has_asked_it() {
    let place = "pci0000:00/0000:00:17.0/ata1/host0/target0:0:0/0:0:0:0/block/sda";
    let attributes: [(&str, &[u8]); 5] = [
        ("device/vendor", b"ATA     \n"),
        ("device/model", b"WDC WD40EFRX-68N\n"),
        ("device/wwid", b"naa.50014ee2b1a2c3d4\n"),
        ("device/vpd_pg80", b"\0\x80\0\x14     WD-WCC7K1234567\0"),
        ("queue/rotational", b"1\n"),
    ];
    let world = World::new(place, &attributes);
    let short = ["WDC WD40EFRX-68N", "WD-WCC7K1234567", "naa.50014ee2b1a2c3d4", "sata", "1", "-"];
    assert_eq!(world.told(0), short);
    let world = world.udev("E:ID_MODEL_ENC=WDC\\x20WD40EFRX-68N32N0\nE:ID_SERIAL_SHORT=WD-WCC7K1234567\n");
    let full = ["WDC WD40EFRX-68N32N0", "WD-WCC7K1234567", "naa.50014ee2b1a2c3d4", "sata", "1", "-"];
    assert_eq!(world.told(0), full);
    assert_eq!(world.told(1), full, "a partition has its disk's");
}

#[test]
fn a_stick_is_told_with_its_port() {
    let place = "pci0000:00/0000:00:14.0/usb1/1-1/1-1.4/1-1.4:1.0/host6/target6:0:0/6:0:0:0/block/sdc";
    let attributes: [(&str, &[u8]); 3] = [
        ("device/vendor", b"SanDisk \n"),
        ("device/model", b"Ultra Fit       \n"),
        ("../../../../../../serial", b"4C53\n"),
    ];
    let world = World::new(place, &attributes);
    assert_eq!(world.told(1), ["SanDisk Ultra Fit", "4C53", "-", "usb", "-", "1-1.4"]);
}

#[test]
fn other_disks_are_told() {
    let nvme: [(&str, &[u8]); 4] = [
        ("wwid", b"eui.0025385b71b0a1c2\n"),
        ("device/model", b"Samsung SSD 980 PRO 1TB                 \n"),
        ("device/serial", b"S5GXNX0T000000      \n"),
        ("device/transport", b"pcie\n"),
    ];
    let place = "pci0000:00/0000:00:1d.0/0000:03:00.0/nvme/nvme0/nvme0n1";
    let told = ["Samsung SSD 980 PRO 1TB", "S5GXNX0T000000", "eui.0025385b71b0a1c2", "nvme", "-", "-"];
    assert_eq!(World::new(place, &nvme).told(0), told);
    let virtio: [(&str, &[u8]); 2] = [("serial", b"vol-1"), ("device/vendor", b"0x1af4\n")];
    let told = ["-", "vol-1", "-", "virtio", "-", "-"];
    assert_eq!(World::new("pci0000:00/0000:00:04.0/virtio1/block/vda", &virtio).told(0), told);
    let dm: [(&str, &[u8]); 2] = [("dm/name", b"vg-root\n"), ("dm/uuid", b"LVM-abc\n")];
    assert_eq!(World::new("virtual/block/dm-0", &dm).told(0), ["vg-root", "-", "LVM-abc", "dm", "-", "-"]);
    let over: [(&str, &[u8]); 1] = [("loop/backing_file", b"/srv/a b\nc.img\n")];
    assert_eq!(World::new("virtual/block/loop7", &over).told(0), ["/srv/a b\nc.img", "-", "-", "loop", "-", "-"]);
    let md: [(&str, &[u8]); 2] = [("md/level", b"raid1\n"), ("serial", b"0000\n")];
    let world = World::new("virtual/block/md127", &md).udev("E:MD_UUID=1:2:3:4\n");
    assert_eq!(world.told(0), ["raid1", "-", "1:2:3:4", "md", "-", "-"]);
    assert_eq!(world.told(7), ["-"; 6], "no such device");
}

#[test]
fn a_temperature_is_read_aside() {
    let place = "pci0/ata1/host0/target0:0:0/0:0:0:0/block/sda";
    let world = World::new(place, &[("device/hwmon/hwmon3/temp1_input", b"33600\n")]);
    let card = world.card(0);
    let read = || card.fields().into_iter().find(|(key, _)| *key == "temperature").unwrap().1.map(String::from);
    let mut tries = 0..3000;
    while read().is_none() {
        tries.next().expect("a temperature within 30 s");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(read().as_deref(), Some("34"));
}

#[test]
fn a_card_is_one_line_and_made_of_it_again() {
    let card = DeviceCard {
        size: 4096,
        model: Some("a b\n".to_owned()),
        serial: Some("c\\".to_owned()),
        wwid: None,
        transport: Some("usb".to_owned()),
        rotational: Some(false),
        thermometer: None,
        usb_port: Some("1-1".to_owned()),
    };
    assert!(DeviceCard::parse(&card.line()).is_like(&card), "{}", card.line());
    assert!(!DeviceCard::default().is_like(&card));
    assert_eq!(card.line(), "size=4096 model=a\\040b\\012 serial=c\\134 transport=usb rotational=0 usb_port=1-1");
}
