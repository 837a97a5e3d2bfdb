//! Reads a growing file line by line.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::PathBuf;

/// A file that others append lines to, perhaps rotate.
pub struct Follow {
    path: PathBuf,
    file: Option<File>,
    offset: u64,
    unfinished: Vec<u8>,
}

impl Follow {
    /// Begins at the start of the file, which need not be there yet.
    pub fn new(path: impl Into<PathBuf>) -> Follow {
        Follow { path: path.into(), file: None, offset: 0, unfinished: Vec::new() }
    }

    /// The complete lines that came since the last call, without their line ends.
    ///
    /// # Errors
    /// Those of the file system, but for a file that is not there (yet).
    pub fn lines(&mut self) -> io::Result<Vec<Vec<u8>>> {
        let mut bytes = self.rest_of_file()?;
        if self.was_replaced()? {
            self.file = None;
            self.offset = 0;
            bytes.extend(self.rest_of_file()?);
        }
        self.unfinished.append(&mut bytes);
        let mut lines = Vec::new();
        while let Some(end) = self.unfinished.iter().position(|b| *b == b'\n') {
            let mut line: Vec<u8> = self.unfinished.drain(..=end).collect();
            line.pop();
            lines.push(line);
        }
        Ok(lines)
    }

    fn rest_of_file(&mut self) -> io::Result<Vec<u8>> {
        if self.file.is_none() {
            self.file = match File::open(&self.path) {
                Ok(file) => Some(file),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
                Err(error) => return Err(error),
            };
        }
        let file = self.file.as_mut().expect("opened above");
        file.seek(SeekFrom::Start(self.offset))?;
        let mut bytes = Vec::new();
        self.offset += file.read_to_end(&mut bytes)? as u64;
        Ok(bytes)
    }

    /// Whether another file has taken the path, as rotation does it.
    #[cfg(unix)]
    fn was_replaced(&self) -> io::Result<bool> {
        use std::os::unix::fs::MetadataExt;
        let (Some(file), Ok(at_path)) = (&self.file, std::fs::metadata(&self.path)) else {
            return Ok(false);
        };
        Ok(file.metadata()?.ino() != at_path.ino() || at_path.len() < self.offset)
    }

    /// Whether the file was cut, as far as can be seen here.
    #[cfg(not(unix))]
    fn was_replaced(&self) -> io::Result<bool> {
        let at_path = std::fs::metadata(&self.path);
        Ok(at_path.is_ok_and(|metadata| metadata.len() < self.offset))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;

    use super::*;
    use crate::demo::object;

    #[test]
    fn gives_whole_lines_through_a_rotation() {
        let folder = std::env::temp_dir().join(format!("follow-{}", object::uid()));
        fs::create_dir(&folder).unwrap();
        let path = folder.join("log");
        let mut follow = Follow::new(&path);
        assert!(follow.lines().unwrap().is_empty());
        let mut file = File::create(&path).unwrap();
        file.write_all(b"one\ntw").unwrap();
        assert_eq!(follow.lines().unwrap(), [b"one"]);
        file.write_all(b"o\nthree\n").unwrap();
        fs::rename(&path, folder.join("old")).unwrap();
        fs::write(&path, "four\n").unwrap();
        let lines = follow.lines().unwrap();
        assert_eq!(lines, [&b"two"[..], b"three", b"four"]);
        fs::remove_dir_all(&folder).unwrap();
    }
}
