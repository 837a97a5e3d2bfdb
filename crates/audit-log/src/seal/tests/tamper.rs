//! Manipulates a sealed log in a thousand ways: each is detected and reported with its place.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::sealed_log::{SealedLog, check, compress, gzip, with_ending};
use super::verify::{Finding, Kind, Report};
use super::{Head, seal_path};
use crate::test_folder::TestFolder;

/// Number of manipulations.
const ATTEMPTS: u64 = 1_000;

/// Deterministic pseudo-random numbers.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }

    fn of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }
}

/// Creates a log of several files, the oldest compressed, with a crash and a graceful restart.
fn original() -> (TestFolder, Head) {
    let folder = TestFolder::new();
    let mut log = SealedLog::open(&folder);
    for _ in 0..14 {
        log.write(7);
        log.seal(false);
    }
    log.write(3);
    // Killed.
    drop(log);
    let mut log = SealedLog::open(&folder);
    log.write(40);
    log.seal(false);
    log.stop();
    let mut log = SealedLog::open(&folder);
    log.write(25);
    log.seal(false);
    log.stop();
    let oldest = with_ending(folder.path(), ".log").remove(0);
    compress(&oldest);
    let report = check(folder.path(), &[]);
    assert!(report.is_intact(), "{report:?}");
    assert!(report.files >= 4, "{report:?}");
    let head = report.head.unwrap();
    (folder, head)
}

fn copy(from: &Path, to: &Path) {
    for path in fs::read_dir(from).unwrap().map(|entry| entry.unwrap().path()) {
        fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
}

fn read(path: &Path) -> Vec<u8> {
    let bytes = fs::read(path).unwrap();
    if path.extension().unwrap() != "gz" {
        return bytes;
    }
    unpack(&bytes).unwrap()
}

fn unpack(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut plain = Vec::new();
    flate2::read::GzDecoder::new(bytes).read_to_end(&mut plain)?;
    Ok(plain)
}

fn write(path: &Path, bytes: &[u8]) {
    let packed = path.extension().unwrap() == "gz";
    fs::write(path, if packed { gzip(bytes) } else { bytes.to_vec() }).unwrap();
}

fn lines(path: &Path) -> Vec<Vec<u8>> {
    read(path).split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect()
}

/// The expected finding: one of these kinds, in this file, at one of these lines (at any if empty).
struct Expected {
    kinds: Vec<Kind>,
    path: Option<PathBuf>,
    lines: Vec<u64>,
}

impl Expected {
    fn at(kind: Kind, path: &Path, lines: &[usize]) -> Expected {
        let lines = lines.iter().map(|line| *line as u64).collect();
        Expected { kinds: vec![kind], path: Some(path.to_owned()), lines }
    }

    fn any(kinds: &[Kind]) -> Expected {
        Expected { kinds: kinds.to_vec(), path: None, lines: Vec::new() }
    }

    fn is(&self, finding: &Finding) -> bool {
        self.kinds.contains(&finding.kind)
            && self.path.as_ref().is_none_or(|path| *path == finding.path)
            && (self.lines.is_empty()
                || finding.line.is_some_and(|line| self.lines.contains(&line)))
    }
}

/// Makes one manipulation.
fn tamper(folder: &Path, way: u64, random: &mut Random) -> Expected {
    let mut logs = with_ending(folder, ".log.gz");
    logs.extend(with_ending(folder, ".log"));
    // By time, so that the active log is the last.
    let path = random.of(&logs).clone();
    let mut all = lines(&path);
    let at = random.below(all.len());
    let other = random.below(all.len());
    let last = logs.len() - 1;
    match way {
        0 => {
            let byte = random.below(all[at].len() - 1);
            all[at][byte] ^= 1;
            if all[at][byte] == b'\n' {
                all[at][byte] = b'?';
            }
            write(&path, &all.concat());
            Expected::at(Kind::Changed, &path, &[at + 1])
        }
        1 => {
            all.remove(at);
            write(&path, &all.concat());
            Expected::at(Kind::Removed, &path, &[at + 1])
        }
        2 => {
            let line = all[at].clone();
            all.insert(other, line);
            write(&path, &all.concat());
            // If two adjacent lines are identical, either may be reported as the copy.
            let lines = if other == at { vec![at + 1, at + 2] } else { vec![other + 1] };
            let lines = if other == at + 1 { vec![at + 1, at + 2] } else { lines };
            Expected::at(Kind::Inserted, &path, &lines)
        }
        3 => {
            let other = if other == at { (at + 1) % all.len() } else { other };
            all.swap(at, other);
            write(&path, &all.concat());
            Expected::at(Kind::Moved, &path, &[at + 1, other + 1])
        }
        4 => {
            all.insert(at, b"{\"auditID\":\"forged\"}\n".to_vec());
            write(&path, &all.concat());
            Expected::at(Kind::Inserted, &path, &[at + 1])
        }
        5 => {
            let bytes = all.concat();
            let left = random.below(bytes.len());
            let whole = bytes[..left].iter().filter(|byte| **byte == b'\n').count();
            write(&path, &bytes[..left]);
            let mut expected = Expected::at(Kind::Removed, &path, &[whole + 1, whole + 2]);
            expected.kinds.push(Kind::Changed);
            expected
        }
        6 => {
            let seal = random.of(&with_ending(folder, ".seal")).clone();
            let bytes = fs::read(&seal).unwrap();
            fs::write(&seal, &bytes[..random.below(bytes.len())]).unwrap();
            Expected::any(&[
                Kind::Head,
                Kind::Seal,
                Kind::FileRemoved,
                Kind::Inserted,
                Kind::NoSeal,
            ])
        }
        7 => {
            fs::remove_file(&path).unwrap();
            let plain = super::plain_path(&path);
            Expected::at(Kind::FileRemoved, &plain, &[])
        }
        8 => {
            // Not the oldest, because retention deletes it.
            let index = 1 + random.below(last);
            fs::remove_file(&logs[index]).unwrap();
            fs::remove_file(seal_path(&logs[index])).unwrap();
            match logs.get(index + 1) {
                Some(next) => Expected::at(Kind::FileRemoved, &seal_path(next), &[1]),
                None => Expected::any(&[Kind::Head]),
            }
        }
        9 => {
            fs::remove_file(seal_path(&path)).unwrap();
            match path == logs[last] {
                // The last file could be one that is not sealed yet.
                true => Expected::any(&[Kind::NoSeal, Kind::Head]),
                false => Expected::at(Kind::NoSeal, &path, &[]),
            }
        }
        10 | 11 => {
            let one = random.below(last);
            let two = (one + 1 + random.below(last - 1)) % last;
            let (one, two) = (one.min(two), one.max(two));
            let (a, b) = (read(&logs[one]), read(&logs[two]));
            write(&logs[one], &b);
            write(&logs[two], &a);
            if way == 10 {
                return Expected::at(Kind::Swapped, &logs[two], &[]);
            }
            let (a, b) = (seal_path(&logs[one]), seal_path(&logs[two]));
            fs::rename(&a, folder.join("aside")).unwrap();
            fs::rename(&b, &a).unwrap();
            fs::rename(folder.join("aside"), &b).unwrap();
            Expected::any(&[Kind::Swapped])
        }
        12 => {
            let seal = random.of(&with_ending(folder, ".seal")).clone();
            let mut bytes = fs::read(&seal).unwrap();
            let length = bytes.len();
            let at = random.below(length);
            let row = bytes[..at].iter().filter(|byte| **byte == b'\n').count() + 1;
            bytes[at] = bytes[at].wrapping_add(1 + random.below(255) as u8);
            fs::write(&seal, bytes).unwrap();
            if at + 1 == length {
                // Only the last newline is missing: the last record is partial.
                return Expected::any(&[Kind::Seal, Kind::Head, Kind::FileRemoved]);
            }
            Expected::at(Kind::Seal, &seal, &[row])
        }
        13 => {
            // Records are removed, copied, swapped.
            let seal = random.of(&with_ending(folder, ".seal")).clone();
            let mut all = lines_of(&seal);
            let (at, other) = (random.below(all.len()), random.below(all.len()));
            match random.below(3) {
                0 => {
                    all.remove(at);
                }
                1 => {
                    let record = all[at].clone();
                    all.insert(other, record);
                }
                _ if all.len() > 1 => {
                    let other = if at == other { (at + 1) % all.len() } else { other };
                    all.swap(at, other);
                }
                _ => all.clear(),
            }
            fs::write(&seal, all.concat()).unwrap();
            Expected::any(&[Kind::Seal, Kind::Head, Kind::FileRemoved, Kind::NoSeal])
        }
        14 => {
            let packed = with_ending(folder, ".log.gz").remove(0);
            let (original, bytes) = (read(&packed), fs::read(&packed).unwrap());
            // The unused bits of the stream's last byte do not belong to the log.
            let tampered = loop {
                let mut bytes = bytes.clone();
                let at = 10 + random.below(bytes.len() - 10);
                bytes[at] ^= 1 << random.below(8);
                if unpack(&bytes).ok().as_ref() != Some(&original) {
                    break bytes;
                }
            };
            fs::write(&packed, tampered).unwrap();
            let mut expected = Expected::at(Kind::Changed, &packed, &[]);
            // The file may be unreadable, or may decompress to something else.
            expected.kinds.extend([Kind::Removed, Kind::Inserted]);
            expected
        }
        _ => {
            // A file of the chain replaces another.
            let other = random.of(&logs).clone();
            let other = if other == path { logs[last.div_ceil(2)].clone() } else { other };
            let bytes = if other == path { b"{}\n".to_vec() } else { read(&other) };
            write(&path, &bytes);
            Expected::any(&[Kind::Changed, Kind::Removed, Kind::Swapped, Kind::FileRemoved])
        }
    }
}

fn lines_of(seal: &Path) -> Vec<Vec<u8>> {
    let bytes = fs::read(seal).unwrap();
    bytes.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect()
}

fn says(report: &Report) -> String {
    report.findings.iter().map(|finding| format!("{:?} {finding}\n", finding.kind)).collect()
}

#[test]
fn each_of_a_thousand_tamperings_is_found_and_named() {
    let (original, head) = original();
    let mut random = Random(0x5eed_5eed_5eed_5eed);
    for attempt in 0..ATTEMPTS {
        let folder = TestFolder::new();
        copy(original.path(), folder.path());
        let way = attempt % 16;
        let expected = tamper(folder.path(), way, &mut random);
        let report = check(folder.path(), &[head]);
        assert!(
            report.findings.iter().any(|finding| expected.is(finding)),
            "attempt {attempt}, way {way}: expected {:?} in {:?} at {:?}, found:\n{}",
            expected.kinds,
            expected.path,
            expected.lines,
            says(&report)
        );
        // One manipulation is reported as one.
        if way < 5 {
            assert!(report.findings.len() <= 2, "way {way}:\n{}", says(&report));
            let path = expected.path.unwrap();
            assert!(report.findings.iter().all(|finding| finding.path == path));
        }
        if attempt % 50 == 0 {
            let untouched = TestFolder::new();
            copy(original.path(), untouched.path());
            assert!(check(untouched.path(), &[head]).is_intact());
        }
    }
}
