//! What a job's devices are, as people call them: model, serial number, wwid, size.

use crate::blkdev::DeviceCard;
use crate::jobs::{JobId, Jobs};

/// What is known of a device; `None` where nothing is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::fs) struct Device {
    pub(in crate::fs) model: Option<String>,
    pub(in crate::fs) serial: Option<String>,
    pub(in crate::fs) wwid: Option<String>,
    /// Bytes of the whole device; none of a file that the job makes.
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

    fn of_card(card: &DeviceCard) -> Self {
        let DeviceCard { size, model, serial, wwid, .. } = card.clone();
        Self { model, serial, wwid, size: Some(size).filter(|size| *size > 0) }
    }
}

/// What is known of a job's source, where it has one, and of its destinations.
pub(in crate::fs) fn all(jobs: &Jobs, id: JobId) -> Vec<Option<Device>> {
    let devices = jobs.devices(id).unwrap_or_default();
    devices.iter().map(|device| device.card.as_deref().map(Device::of_card)).collect()
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
    fn a_card_tells_what_is_printed_on_the_disk() {
        let text = |text: &str| Some(text.to_owned());
        let card = DeviceCard { size: 2 << 20, serial: text("WD-1"), ..DeviceCard::default() };
        let disk = Device::of_card(&card);
        assert_eq!((disk.label(), disk.size), (text("WD-1"), Some(2 << 20)));
        assert_eq!(Device::of_card(&DeviceCard::default()).size, None, "a file that the job makes");
        let both = Device { model: text("WDC WD40EFRX"), ..disk };
        assert_eq!(both.label(), text("WDC WD40EFRX WD-1"));
    }
}
