use super::*;
use crate::read::{Recording, summary};

struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Dir {
        let path = std::env::temp_dir().join(format!("recordings-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        prepare(&path).unwrap();
        Dir(path)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

const HEADER: &str = "{\"version\":2,\"width\":80,\"height\":24,\"timestamp\":0}\n";
const LINES: &str = "[0.100000, \"o\", \"one\"]\n[0.900000, \"o\", \"two\"]\n";

#[test]
fn names_are_safe_and_unique() {
    let dir = Dir::new("names");
    let start: Timestamp = "2026-11-29T01:02:03.5Z".parse().unwrap();
    let first = create(&dir.0, start, "../../etc/pass wd", false).unwrap();
    assert_eq!(first.name, "20261129T010203.500000Z-______etc_pass_wd.cast");
    assert!(is_recording(&first.name));
    let second = create(&dir.0, start, "../../etc/pass wd", false).unwrap();
    assert_eq!(second.name, "20261129T010203.500000Z-______etc_pass_wd-2.cast");
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(fs::metadata(&first.partial).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn partial_recordings_are_salvaged_unless_they_are_being_written() {
    let dir = Dir::new("salvage");
    let start = Timestamp::now();
    let torn = format!("{HEADER}{LINES}[1.0, \"o\", \"thr");
    let plain = create(&dir.0, start, "plain", false).unwrap();
    fs::write(&plain.partial, &torn).unwrap();
    let packed = create(&dir.0, start, "packed", true).unwrap();
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
    encoder.write_all(format!("{HEADER}{LINES}").as_bytes()).unwrap();
    encoder.flush().unwrap();
    fs::write(&packed.partial, encoder.get_ref()).unwrap();
    assert_eq!(salvage_all(&dir.0).unwrap(), 0, "both are open");
    let (plain_path, packed_path) = (plain.path.clone(), packed.path.clone());
    drop((plain, packed));
    assert_eq!(salvage_all(&dir.0).unwrap(), 2);
    for path in [plain_path, packed_path] {
        let mut recording = Recording::open(&path).unwrap();
        let mut text = Vec::new();
        while let Some(item) = recording.next_item().unwrap() {
            if let Item::Output { bytes, .. } = item {
                text.extend_from_slice(&bytes);
            }
        }
        assert_eq!(text, b"onetwo");
        let summary = summary(&path).unwrap().unwrap();
        assert!(summary.salvaged);
        assert_eq!((summary.bytes_out, summary.duration), (6, 0.9));
    }
    assert_eq!(fs::read_dir(&dir.0).unwrap().count(), 2);
}

#[test]
fn old_and_superfluous_recordings_are_deleted_oldest_first() {
    let dir = Dir::new("retention");
    let names: Vec<String> =
        (1..=4).map(|day| format!("2026110{day}T000000.000000Z-id.cast")).collect();
    for name in &names {
        fs::write(dir.0.join(name), [0; 100]).unwrap();
    }
    fs::write(dir.0.join("notes.cast"), [0; 100]).unwrap();
    let now = SystemTime::now();
    let size = |max| Retention { max_total_bytes: Some(max), ..Retention::default() };
    assert_eq!(retain(&dir.0, size(400), now).unwrap(), 0);
    assert_eq!(retain(&dir.0, size(250), now).unwrap(), 2);
    let left: Vec<_> = recordings(&dir.0).unwrap();
    assert_eq!(left, [dir.0.join(&names[2]), dir.0.join(&names[3])]);
    let age = Retention { max_age: Some(Duration::from_secs(3600)), ..Retention::default() };
    assert_eq!(retain(&dir.0, age, now).unwrap(), 0);
    assert_eq!(retain(&dir.0, age, now + Duration::from_secs(7200)).unwrap(), 2);
    assert!(dir.0.join("notes.cast").exists());
}
