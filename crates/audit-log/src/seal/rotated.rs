//! Rotated files and their seals, as a directory has them.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::SystemTime;

use crate::files::with_suffix;
use crate::rotate::{BackupNames, GZ, RETIRED, SEAL, ZST, without_suffix};

/// A rotated file, by what is there of it.
#[derive(Debug)]
pub(super) struct Rotated {
    pub log: Option<PathBuf>,
    pub seal: PathBuf,
    /// The seal is there, perhaps without a record.
    pub has_seal: bool,
    /// The retention has begun to delete it: the seal has another name.
    pub retired: bool,
    /// Its name before it was compressed.
    pub plain: PathBuf,
    /// By its name.
    pub time: SystemTime,
}

/// Returns the oldest first.
pub(super) fn rotated(names: &BackupNames) -> io::Result<Vec<Rotated>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(&names.folder)? {
        let (path, name) = {
            let entry = entry?;
            (entry.path(), entry.file_name())
        };
        let Some((time, suffix)) = names.parse(&name) else { continue };
        let Ok(suffix) = std::str::from_utf8(suffix) else { continue };
        if !["", GZ, ZST, SEAL, RETIRED].contains(&suffix) {
            continue;
        }
        let plain = names.folder.join(without_suffix(&name, suffix));
        let seal = with_suffix(&plain, SEAL);
        let file = found.entry((time, plain.clone())).or_insert(Rotated {
            log: None,
            seal,
            has_seal: false,
            retired: false,
            plain,
            time,
        });
        match suffix {
            SEAL => file.has_seal = true,
            RETIRED => file.retired = true,
            // Of a plain file and its compressed twin, the twin may not be whole.
            "" => file.log = Some(path),
            _ if file.log.is_none() => file.log = Some(path),
            _ => {}
        }
    }
    let mut found: Vec<Rotated> = found.into_values().collect();
    for file in found.iter_mut().filter(|file| file.retired) {
        if file.has_seal {
            // Another process has put both there; the one that is in place counts.
            file.retired = false;
        } else {
            file.seal = with_suffix(&file.plain, RETIRED);
            file.has_seal = true;
        }
    }
    Ok(found)
}
