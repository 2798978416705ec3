//! What a job's devices are, as people call them: model, serial number, wwid, size.

use crate::jobs::{JobId, Jobs};

/// What is known of a device; `None` where nothing is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::fs) struct Device {
    pub(in crate::fs) model: Option<String>,
    pub(in crate::fs) serial: Option<String>,
    pub(in crate::fs) wwid: Option<String>,
    /// Bytes of the whole device.
    pub(in crate::fs) size: Option<u64>,
}

impl Device {
    /// Model and serial in a few words, where either is known.
    pub(in crate::fs) fn label(&self) -> Option<String> {
        match (&self.model, &self.serial) {
            (Some(model), Some(serial)) => Some(format!("{model} {serial}")),
            (one, other) => one.as_ref().or(other.as_ref()).cloned(),
        }
    }

    /// What an identity of a device tells, as a job keeps it to recognise its devices after a restart: see
    /// [`crate::blkdev::identity`].
    fn of_identity(identity: &str) -> Self {
        let value = |key: &str| {
            let found = identity.split(';').find_map(|part| part.trim_start_matches("on=").strip_prefix(key));
            found.filter(|value| !value.is_empty()).map(str::to_owned)
        };
        let first = identity.split(";on=").next().unwrap_or_default();
        let sectors = first.split(';').find_map(|part| part.strip_prefix("sectors=")?.parse::<u64>().ok());
        Self {
            model: None,
            serial: value("serial:"),
            wwid: value("wwid:"),
            size: sectors.and_then(|sectors| sectors.checked_mul(512)),
        }
    }
}

/// What is known of a job's source, where it has one, and of its destinations.
pub(in crate::fs) fn all(jobs: &Jobs, id: JobId) -> Vec<Option<Device>> {
    let identities = jobs.identities(id).unwrap_or_default();
    identities.iter().map(|text| text.as_deref().map(Device::of_identity)).collect()
}

/// What is known of a job's destinations, each in a few words.
pub(in crate::fs) fn labels(jobs: &Jobs, id: JobId) -> Vec<Option<String>> {
    let skipped = usize::from(jobs.brief(id).is_some_and(|job| job.has_source));
    all(jobs, id).iter().skip(skipped).map(|device| device.as_ref().and_then(Device::label)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_tells_what_is_printed_on_the_disk() {
        let text = |text: &str| Some(text.to_owned());
        let disk = Device::of_identity("wwid:naa.5000c500a1b2c3d4;sectors=4096");
        assert_eq!((disk.wwid, disk.serial, disk.size), (text("naa.5000c500a1b2c3d4"), None, Some(2 << 20)));
        let part = Device::of_identity("part:1+2048;sectors=64;on=serial:VB123;sectors=4096");
        assert_eq!((part.serial.clone(), part.size, part.label()), (text("VB123"), Some(32 << 10), text("VB123")));
        assert_eq!(Device::of_identity("inode:7;born=1.0;on=uuid:00"), Device::default());
        let both = Device { model: text("WDC WD40EFRX"), serial: text("WD-1"), ..Device::default() };
        assert_eq!(both.label(), text("WDC WD40EFRX WD-1"));
    }
}
