use super::*;

fn times(seconds: i64, nanos: u32) -> Option<LocalTimes> {
    let time = from_epoch(seconds, nanos);
    Some(LocalTimes {
        modified: time,
        accessed: time,
        version: Version::new("v1"),
    })
}

#[test]
fn what_was_set_outlives_the_daemon() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    let set = LocalAttributes {
        mode: Some(0o755),
        times: times(-5, 999_999_999),
    };
    StateDb::open(&path).unwrap().set_attributes("n", "a/b", &set).unwrap();
    let db = StateDb::open(&path).unwrap();
    assert_eq!(db.attributes("n", "a/b").unwrap(), set);
    assert_eq!(db.attributes("other", "a/b").unwrap(), LocalAttributes::default());
    db.set_attributes("n", "a/b", &LocalAttributes::default()).unwrap();
    assert_eq!(db.attributes("n", "a/b").unwrap(), LocalAttributes::default());
    use std::os::unix::fs::MetadataExt;
    assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
}

#[test]
fn renaming_and_removing_take_what_is_below() {
    let folder = tempfile::tempdir().unwrap();
    let db = StateDb::open(&folder.path().join("state.db")).unwrap();
    let mode = |mode| LocalAttributes {
        mode: Some(mode),
        times: None,
    };
    for (number, path) in ["d", "d/a%_", "d/b/c", "dd", "e", "e/old"].iter().enumerate() {
        db.set_attributes("n", path, &mode(number as u32)).unwrap();
    }
    db.rename("n", "d", "e").unwrap();
    let shown = |path: &str| db.attributes("n", path).unwrap().mode;
    assert_eq!(
        [shown("e"), shown("e/a%_"), shown("e/b/c"), shown("dd")],
        [Some(0), Some(1), Some(2), Some(3)]
    );
    assert_eq!([shown("d"), shown("d/b/c"), shown("e/old")], [None; 3]);
    db.remove("n", "e/b").unwrap();
    assert_eq!([shown("e/b/c"), shown("e/a%_")], [None, Some(1)]);
    db.remove("n", "e").unwrap();
    assert_eq!([shown("e"), shown("e/a%_"), shown("dd")], [None, None, Some(3)]);
}

#[test]
fn a_damaged_database_is_set_aside() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    std::fs::write(&path, vec![7; 8192]).unwrap();
    let db = StateDb::open(&path).unwrap();
    db.set_attributes(
        "n",
        "a",
        &LocalAttributes {
            mode: Some(1),
            times: None,
        },
    )
    .unwrap();
    let names: Vec<String> = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(
        names.iter().any(|name| name.starts_with("state.db.corrupt-")),
        "{names:?}"
    );
}

#[test]
fn a_newer_database_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    drop(StateDb::open(&path).unwrap());
    Connection::open(&path)
        .unwrap()
        .pragma_update(None, "user_version", 99)
        .unwrap();
    let refused = StateDb::open(&path).map(drop).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unsupported);
    assert!(refused.message().contains("newer keymount"), "{refused}");
}

#[test]
fn times_before_1970_keep_their_nanoseconds() {
    for (seconds, nanos) in [(0, 0), (-1, 500_000_000), (-1, 0), (1_600_000_000, 123_456_789)] {
        assert_eq!(since_epoch(from_epoch(seconds, nanos)), (seconds, nanos));
    }
}
