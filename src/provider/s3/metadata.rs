//! What answers tell of an object, and what POSIX has of a file beside its content as metadata of it.
//!
//! `x-amz-meta-keymount` has all of it (`PosixAttributes::write`). `x-amz-meta-mtime` is beside that what rclone writes and
//! reads: the modification time in seconds since 1970 with a fraction (rclone's documentation, "Amazon S3", "Modification
//! times and hashes"). Where the two differ, somebody else has set the time since. `x-amz-meta-keymount-over` is the entity
//! tag of what an object replaced: whoever had stored that knows by it that it was there. `x-amz-meta-keymount-upload` is another
//! number for each upload: an object with ours and other bytes is ours, and stored wrongly.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use opendal::Metadata;

use super::store::{Condition, Object, version_of};
use crate::model::{Error, PosixAttributes, PosixTimes, Result, ToldAttributes, read_time, write_time};

const OURS: &str = "keymount";
const MTIME: &str = "mtime";
const OVER: &str = "keymount-over";

const UPLOAD: &str = "keymount-upload";

/// What goes with a file that is stored under this condition, by this upload.
pub(super) fn write(attributes: &PosixAttributes, condition: Condition<'_>, upload: &str) -> HashMap<String, String> {
    let mut metadata = HashMap::from([(UPLOAD.to_owned(), upload.to_owned())]);
    if let Condition::Version(version) = condition {
        metadata.insert(OVER.to_owned(), version.as_str().to_owned());
    }
    if *attributes == PosixAttributes::default() {
        return metadata;
    }
    metadata.insert(OURS.to_owned(), attributes.write());
    if let Some(times) = attributes
        .times
        .filter(|times| times.modified >= SystemTime::UNIX_EPOCH)
    {
        metadata.insert(MTIME.to_owned(), write_time(times.modified));
    }
    metadata
}

fn read(told: &Metadata) -> ToldAttributes {
    let metadata = told.user_metadata();
    let value = |key: &str| metadata.as_ref().and_then(|metadata| metadata.get(key));
    read_values(value(OURS), value(MTIME))
}

fn read_values(ours: Option<&str>, mtime: Option<&str>) -> ToldAttributes {
    let mut attributes = ours.and_then(PosixAttributes::read).unwrap_or_default();
    if let Some(modified) = mtime.and_then(read_time)
        && attributes.times.is_none_or(|times| times.modified != modified)
    {
        attributes.times = Some(PosixTimes {
            modified,
            accessed: modified,
        });
    }
    attributes.into()
}

/// An object by an answer that may be a listing.
pub(super) fn object(told: &Metadata) -> Result<Object> {
    let etag = told
        .etag()
        .ok_or_else(|| Error::bad_data("the S3 service tells no entity tag of an object"))?;
    let modified = told.last_modified().map_or(SystemTime::UNIX_EPOCH, SystemTime::from);
    // A listing knows parts of a second that a look at the object doesn't.
    let seconds = modified
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |time| time.as_secs());
    Ok(Object {
        size: told.content_length(),
        version: version_of(etag),
        modified: SystemTime::UNIX_EPOCH + Duration::from_secs(seconds),
        posix: ToldAttributes::Untold,
        over: None,
        upload: None,
    })
}

/// The same by an answer that has the object's metadata, as a look at one has and a listing hasn't.
pub(super) fn whole_object(told: &Metadata) -> Result<Object> {
    let metadata = told.user_metadata();
    let value = |key: &str| metadata.as_ref().and_then(|metadata| metadata.get(key));
    let (over, upload) = (value(OVER), value(UPLOAD));
    Ok(Object {
        posix: read(told),
        over: over.map(version_of),
        upload: upload.map(ToString::to_string),
        ..object(told)?
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Version;

    #[test]
    fn the_time_that_was_set_last_counts() {
        let modified = |ours, mtime| {
            let told = read_values(ours, mtime);
            let times = told.told().and_then(|told| told.times);
            times.map(|times| times.modified.duration_since(SystemTime::UNIX_EPOCH).unwrap())
        };
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        assert_eq!(modified(None, None), None);
        assert_eq!(modified(Some("1;t=5"), None), seconds(5));
        assert_eq!(
            modified(Some("1;t=5.5"), Some("5.500000000")),
            Some(Duration::from_millis(5500))
        );
        assert_eq!(modified(Some("1;t=5"), Some("6")), seconds(6));
        assert_eq!(modified(None, Some("6")), seconds(6));
        assert_eq!(modified(Some("lies"), Some("lies")), None);
    }

    #[test]
    fn rclones_key_is_written_beside_ours() {
        let at = |modified| PosixAttributes {
            times: Some(PosixTimes {
                modified,
                accessed: modified,
            }),
            ..PosixAttributes::default()
        };
        let later = SystemTime::UNIX_EPOCH + Duration::from_millis(1500);
        assert_eq!(write(&at(later), Condition::Free, "1")[MTIME], "1.500000000");
        let before = SystemTime::UNIX_EPOCH - Duration::from_millis(1500);
        assert_eq!(write(&at(before), Condition::Free, "1").get(MTIME), None);
    }

    #[test]
    fn an_upload_is_known_by_its_number_and_what_it_replaces() {
        let written = |condition| write(&PosixAttributes::default(), condition, "1");
        let number = (UPLOAD.to_owned(), "1".to_owned());
        assert_eq!(written(Condition::Free), HashMap::from([number.clone()]));
        let version = Version::new("\"tag\"");
        let over = (OVER.to_owned(), "\"tag\"".to_owned());
        assert_eq!(written(Condition::Version(&version)), HashMap::from([number, over]));
    }
}
