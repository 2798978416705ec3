//! What people call a device: model, serial, wwid, transport, port.
//!
//! Everything comes from sysfs and from udev's database, which are text that the system has already: reading them asks no
//! device. The temperature alone is asked of the disk by its driver; see [`Thermometer`].
//!
//! A partition has the card of its disk, and its own size. What no hardware is behind says what it is made of: a dm device its
//! name and uuid, an md device its level and uuid, a loop device its backing file.
//!
//! # Invariants
//! The values are text from hardware, udev or an administrator, as it is: whoever prints them escapes them.

use std::borrow::Cow;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

mod thermometer;
mod udev;

pub use thermometer::Thermometer;

use super::device::{Device, Target};
use super::sysfs::node_in;
use crate::os::mounts::{escape, unescape};
use udev::Udev;

/// Bytes of one value that are kept: no hardware has names as long as that.
const VALUE_MAX: usize = 256;

/// What people call a device. `None` where it is not known.
#[derive(Clone, Debug, Default)]
pub struct DeviceCard {
    /// Its bytes when it was opened; 0 for a file that is made then, and nothing is told of that.
    pub size: u64,
    /// Vendor and model; of a device made of others, what it is.
    pub model: Option<String>,
    /// The serial number on its label.
    pub serial: Option<String>,
    /// The name that is unique in the world: `naa.`, `eui.`, a uuid.
    pub wwid: Option<String>,
    /// How it is attached: sata, sas, usb, nvme, virtio, loop, dm, file...
    pub transport: Option<String>,
    /// Whether it spins.
    pub rotational: Option<bool>,
    /// Where its temperature is read.
    pub thermometer: Option<Arc<Thermometer>>,
    /// The port of the USB bus that it is plugged into, as `1-2.4`.
    pub usb_port: Option<String>,
}

/// Where the system's text about devices is.
struct Roots<'a> {
    sys: &'a Path,
    udev: &'a Path,
}

impl DeviceCard {
    /// The card of an open device. Asks neither the device nor a file system.
    pub fn of(device: &Device) -> Self {
        let size = device.size().bytes();
        match device.target() {
            Target::Block { rdev } => {
                let roots = Roots { sys: Path::new("/sys"), udev: Path::new("/run/udev/data") };
                Self { size, ..block(&roots, rdev) }
            }
            Target::File { .. } => Self { size, transport: Some("file".to_owned()), ..Self::default() },
            Target::Memory { .. } => Self { size, transport: Some("memory".to_owned()), ..Self::default() },
        }
    }

    /// Its keys and values, in the order in which they are printed.
    pub fn fields(&self) -> [(&'static str, Option<Cow<'_, str>>); 8] {
        self.fields_at(self.thermometer.as_ref().and_then(Thermometer::celsius))
    }

    fn fields_at(&self, celsius: Option<i64>) -> [(&'static str, Option<Cow<'_, str>>); 8] {
        [
            ("size", (self.size > 0).then(|| self.size.to_string().into())),
            ("model", self.model.as_deref().map(Cow::from)),
            ("serial", self.serial.as_deref().map(Cow::from)),
            ("wwid", self.wwid.as_deref().map(Cow::from)),
            ("transport", self.transport.as_deref().map(Cow::from)),
            ("rotational", self.rotational.map(|spins| if spins { "1" } else { "0" }.into())),
            ("temperature", celsius.map(|degrees| degrees.to_string().into())),
            ("usb_port", self.usb_port.as_deref().map(Cow::from)),
        ]
    }

    /// What is known of it as `KEY=VALUE` words, one line: blanks and control characters of a value are escaped as in /proc/mounts.
    pub fn line(&self) -> String {
        print(self.fields())
    }

    /// The same without what changes: the temperature.
    pub fn lasting_line(&self) -> String {
        print(self.fields_at(None))
    }

    /// The card of such a line.
    pub fn parse(line: &str) -> Self {
        let pair = |word: &str| {
            let (key, value) = word.split_once('=')?;
            let value = unescape(value.as_bytes()).into_os_string().to_string_lossy().into_owned();
            Some((key.to_owned(), value))
        };
        Self::from_fields(line.split(' ').filter_map(pair))
    }

    /// Whether both say the same, wherever their temperature is read.
    pub fn is_like(&self, other: &Self) -> bool {
        self.lasting_line() == other.lasting_line()
    }

    fn from_fields(fields: impl IntoIterator<Item = (String, String)>) -> Self {
        let mut card = Self::default();
        for (key, value) in fields {
            match key.as_str() {
                "size" => card.size = value.parse().unwrap_or(0),
                "model" => card.model = Some(value),
                "serial" => card.serial = Some(value),
                "wwid" => card.wwid = Some(value),
                "transport" => card.transport = Some(value),
                "rotational" => card.rotational = Some(value == "1"),
                "usb_port" => card.usb_port = Some(value),
                _ => {}
            }
        }
        card
    }
}

fn print(fields: [(&'static str, Option<Cow<'_, str>>); 8]) -> String {
    let known = fields.into_iter().filter_map(|(key, value)| Some(format!("{key}={}", word(&value?))));
    known.collect::<Vec<_>>().join(" ")
}

/// A value as one word: blanks, control characters and backslashes are escaped as in /proc/mounts.
pub fn word(value: &str) -> String {
    String::from_utf8_lossy(&escape(value.as_bytes())).into_owned()
}

/// The card of a block device, but for its size.
fn block(roots: &Roots<'_>, rdev: u64) -> DeviceCard {
    let node = node_in(roots.sys, rdev);
    let Ok(place) = fs::canonicalize(&node) else { return DeviceCard::default() };
    let disk = if place.join("partition").exists() { place.parent().map(Path::to_owned) } else { None };
    let disk = disk.unwrap_or(place);
    let number = fs::read_to_string(disk.join("dev")).ok();
    let udev = number.map(|number| Udev::read(roots.udev, number.trim())).unwrap_or_default();
    let usb = usb_device(&disk);
    let name = disk.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    DeviceCard {
        size: 0,
        model: made_of(&disk).or_else(|| model(&disk, &udev)).or_else(|| product(usb.as_deref()?)),
        serial: serial(&disk, &udev).or_else(|| value(usb.as_deref()?, "serial")),
        wwid: wwid(&disk, &udev),
        transport: transport(&disk, &name),
        rotational: value(&disk, "queue/rotational").map(|text| text == "1"),
        thermometer: Thermometer::of(&disk),
        usb_port: usb.and_then(|usb| Some(usb.file_name()?.to_string_lossy().into_owned())),
    }
}

/// An attribute as text without the blanks around it; `None` where it says nothing.
fn value(directory: &Path, attribute: &str) -> Option<String> {
    text(&fs::read(directory.join(attribute)).ok()?)
}

fn text(bytes: &[u8]) -> Option<String> {
    let is_blank = |byte: &u8| byte.is_ascii_whitespace() || *byte == 0;
    let from = bytes.iter().position(|byte| !is_blank(byte))?;
    let to = bytes.iter().rposition(|byte| !is_blank(byte))? + 1;
    let bytes = &bytes[from..to.min(from + VALUE_MAX)];
    Some(String::from_utf8_lossy(bytes).into_owned())
}

/// A name that was given to this one device: zeros are what hardware says that was never given one.
fn given(name: String) -> Option<String> {
    let unique = name.split_once('.').map_or(name.as_str(), |(_, unique)| unique);
    unique.chars().any(|letter| letter.is_alphanumeric() && letter != '0').then_some(name)
}

/// What a device without hardware of its own is.
fn made_of(disk: &Path) -> Option<String> {
    ["dm/name", "md/level", "loop/backing_file"].iter().find_map(|attribute| value(disk, attribute))
}

fn model(disk: &Path, udev: &Udev) -> Option<String> {
    // A SCSI inquiry has room for 16 letters; udev has asked the disk itself.
    let model = udev.get("ID_MODEL_ENC").or_else(|| udev.get("ID_MODEL")).and_then(|model| text(model.as_bytes()));
    let model = model.or_else(|| value(disk, "device/model")).or_else(|| value(disk, "device/name"))?;
    let vendor = value(disk, "device/vendor").filter(|vendor| vendor != "ATA" && !vendor.starts_with("0x"));
    Some(match vendor {
        Some(vendor) if !model.starts_with(&vendor) => format!("{vendor} {model}"),
        _ => model,
    })
}

/// What a USB device calls itself.
fn product(usb: &Path) -> Option<String> {
    let names = ["manufacturer", "product"].map(|attribute| value(usb, attribute));
    let names: Vec<_> = names.into_iter().flatten().collect();
    (!names.is_empty()).then(|| names.join(" "))
}

fn serial(disk: &Path, udev: &Udev) -> Option<String> {
    let told = ["ID_SCSI_SERIAL", "ID_SERIAL_SHORT"].iter().find_map(|key| given(text(udev.get(key)?.as_bytes())?));
    let page = || given(text(fs::read(disk.join("device/vpd_pg80")).ok()?.get(4..)?)?);
    let own = || ["serial", "device/serial"].iter().find_map(|attribute| given(value(disk, attribute)?));
    told.or_else(page).or_else(own)
}

fn wwid(disk: &Path, udev: &Udev) -> Option<String> {
    let attributes = ["dm/uuid", "md/uuid", "wwid", "device/wwid", "device/cid"];
    let own = attributes.iter().find_map(|attribute| given(value(disk, attribute)?));
    own.or_else(|| {
        let keys = ["MD_UUID", "ID_WWN_WITH_EXTENSION", "ID_WWN"];
        keys.iter().find_map(|key| given(text(udev.get(key)?.as_bytes())?))
    })
}

/// How a disk is attached, by the buses on the way to it.
fn transport(disk: &Path, name: &str) -> Option<String> {
    let words: Vec<String> = disk.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    let passes = |begin: &str| {
        let is_one = |word: &String| {
            let rest = word.strip_prefix(begin);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(|letter: char| letter.is_ascii_digit()))
        };
        words.iter().any(is_one)
    };
    let buses = [
        ("usb", "usb"),
        ("virtio", "virtio"),
        ("session", "iscsi"),
        ("end_device-", "sas"),
        ("rport-", "fc"),
        ("ata", "sata"),
        ("mmc_host", "mmc"),
        ("vbd-", "xen"),
    ];
    if let Some((_, bus)) = buses.iter().find(|(begin, _)| passes(begin)) {
        return Some((*bus).to_owned());
    }
    if name.starts_with("nvme") {
        let over = value(disk, "device/transport").filter(|over| over != "pcie");
        return Some(over.map_or("nvme".to_owned(), |over| format!("nvme-{over}")));
    }
    if words.iter().any(|word| word == "virtual") {
        let kind = name.trim_end_matches(|letter: char| letter.is_ascii_digit() || letter == '-');
        return Some(kind.to_owned()).filter(|kind| !kind.is_empty());
    }
    disk.join("device/scsi_level").exists().then(|| "scsi".to_owned())
}

/// The directory of the USB device on the way to a disk: the one nearest to it, for hubs are USB devices, too.
fn usb_device(disk: &Path) -> Option<PathBuf> {
    let is_port = |path: &Path| {
        let name = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
        let numbers =
            |text: &str| text.split('.').all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()));
        name.split_once('-').is_some_and(|(bus, ports)| !bus.contains('.') && numbers(bus) && numbers(ports))
    };
    let is_usb = disk.iter().any(|word| word.to_string_lossy().starts_with("usb"));
    disk.ancestors().find(|path| is_usb && is_port(path)).map(Path::to_owned)
}

#[cfg(test)]
mod tests;
