//! Logs in object storage: what this crate needs of a store, and how objects are read.
//!
//! This crate does not know the network. The program that uses it passes [`Stores`], which opens
//! the bucket of a URL such as `s3://bucket/prefix`.

mod find;

use std::fmt;
use std::io::{self, Read};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::{Buf, Bytes};

pub(crate) use self::find::find;
use crate::scan::Progress;

/// The schemes of URLs that name objects.
const SCHEMES: [&str; 3] = ["s3", "gs", "az"];
/// Read at a time from an object that is read from its start to its end.
const WINDOW: u64 = 4 << 20;

/// Opens buckets.
pub trait Stores: Send + Sync + fmt::Debug {
    /// Opens the bucket of a URL, such as `s3://bucket`.
    ///
    /// # Errors
    /// The settings or credentials in the environment cannot be used. The message contains the
    /// remedy.
    fn open(&self, bucket: &str) -> io::Result<Arc<dyn Store>>;
}

/// A bucket. Errors contain the remedy.
pub trait Store: Send + Sync + fmt::Debug {
    /// Lists the objects below a folder, `""` for the whole bucket: with those of its folders if
    /// `recursive`, otherwise with the names of its folders.
    ///
    /// # Errors
    /// The store cannot be reached, or refuses.
    fn list(&self, folder: &str, recursive: bool) -> io::Result<Listing>;

    /// Returns an object; `None` if there is none of that key.
    ///
    /// # Errors
    /// The store cannot be reached, or refuses.
    fn get(&self, key: &str) -> io::Result<Option<Entry>>;

    /// Reads a part of an object.
    ///
    /// # Errors
    /// The store cannot be reached, or refuses; the object is shorter.
    fn read(&self, key: &str, range: Range<u64>) -> io::Result<Bytes>;

    /// Creates an object from a file, unless there is one of that key. Returns `false` if there is
    /// one with the same content.
    ///
    /// # Errors
    /// [`io::ErrorKind::AlreadyExists`] if there is an object with another content. Otherwise, the
    /// store cannot be reached, or refuses. Nothing is left of the object.
    fn create(&self, key: &str, file: &Path) -> io::Result<bool>;
}

/// What is in a folder of a bucket.
#[derive(Debug, Default)]
pub struct Listing {
    /// Keys of the folders in it, without a slash at their ends.
    pub folders: Vec<String>,
    /// The objects.
    pub objects: Vec<Entry>,
}

/// An object in a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its key.
    pub key: String,
    /// Its size in bytes.
    pub size: u64,
    /// When it was created, in microseconds since 1970.
    pub modified: i64,
}

/// Whether a path of the command line is the URL of objects.
pub fn is_url(path: &Path) -> bool {
    Url::parse(path).is_some()
}

/// The parts of a URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Url<'a> {
    /// `s3://bucket`
    pub(crate) bucket: &'a str,
    /// Without slashes at its ends.
    pub(crate) key: &'a str,
}

impl<'a> Url<'a> {
    pub(crate) fn parse(path: &'a Path) -> Option<Url<'a>> {
        let text = path.to_str()?;
        let (scheme, rest) = text.split_once("://")?;
        if !SCHEMES.contains(&scheme) {
            return None;
        }
        let end = rest.find('/').unwrap_or(rest.len());
        let (bucket, key) = text.split_at(scheme.len() + 3 + end);
        Some(Url { bucket, key: key.trim_matches('/') })
    }
}

/// An object that is read.
#[derive(Debug, Clone)]
pub(crate) struct Object {
    store: Arc<dyn Store>,
    key: Arc<str>,
    pub(crate) size: u64,
}

impl Object {
    /// Reads a part that is within the object.
    pub(crate) fn read(&self, range: Range<u64>) -> io::Result<Bytes> {
        let length = range.end - range.start;
        let bytes = self.store.read(&self.key, range)?;
        match bytes.len() as u64 == length {
            true => Ok(bytes),
            false => Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the store returned another part of the object than was requested",
            )),
        }
    }

    /// Reads from the start, and counts what was read as done.
    pub(crate) fn stream<'a>(&self, progress: &'a Progress) -> impl Read + Send + use<'a> {
        Stream { object: self.clone(), offset: 0, window: Bytes::new(), progress }
    }
}

struct Stream<'a> {
    object: Object,
    /// Behind the window.
    offset: u64,
    window: Bytes,
    progress: &'a Progress,
}

impl Read for Stream<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.window.is_empty() && self.offset < self.object.size {
            let end = self.object.size.min(self.offset + WINDOW);
            self.window = self.object.read(self.offset..end)?;
            self.progress.done.fetch_add(end - self.offset, Ordering::Relaxed);
            self.offset = end;
        }
        let length = buffer.len().min(self.window.len());
        self.window.copy_to_slice(&mut buffer[..length]);
        Ok(length)
    }
}

#[cfg(test)]
pub(crate) mod tests;
