//! The name of a created object, read from the response while it streams by: the truth about what a
//! request created, which its own body is checked against.

use std::io::{self, Write};

use http::HeaderMap;

use super::content_encoding::{Decoder, Encoding};
use super::decode;
use super::object::MediaType;

mod json;
mod protobuf;

/// The name of an object that the API server has created.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Created {
    /// `metadata.name`; empty for kinds without a name, such as reviews.
    pub name: String,
    /// `metadata.generateName`
    pub(crate) generate_name: String,
}

impl Created {
    /// Whether the name looks as if the API server had generated it: the prefix and five
    /// characters.
    pub fn is_generated(&self) -> bool {
        const RANDOM: usize = 5;
        const LONGEST: usize = 63;
        if self.generate_name.is_empty() {
            return false;
        }
        let end = self.generate_name.floor_char_boundary(LONGEST - RANDOM);
        let random = self.name.strip_prefix(&self.generate_name[..end]);
        random.is_some_and(|random| {
            random.len() == RANDOM && random.bytes().all(|byte| byte.is_ascii_alphanumeric())
        })
    }
}

/// What a response says of the object that was created.
#[derive(Debug, PartialEq, Eq)]
pub enum CreatedResponse {
    /// It has the object.
    Object(Created),
    /// It is longer than what is kept of it, and in a format in which the name can come late.
    TooLong,
}

/// Reads the beginning of a response until the name is known.
pub struct CreatedTap(TapState);

enum TapState {
    Goes(Decoder<Finder>),
    Ended(Option<CreatedResponse>),
}

/// So much of a response in YAML, CBOR or protobuf is kept to find the name in.
const KEPT: usize = 256 << 10;

struct Finder {
    format: Format,
    found: Option<CreatedResponse>,
}

enum Format {
    /// The scanner is made when the name is not in the usual place of the first piece.
    Json(Option<Box<json::Scanner>>),
    /// YAML or CBOR, converted when it has ended.
    Whole(MediaType, Vec<u8>),
    /// Looked through each time that more comes.
    Protobuf(Vec<u8>),
}

impl CreatedTap {
    /// Returns a tap for a response with these headers; `None` if no object can be read from it.
    pub fn new(response: &HeaderMap) -> Option<CreatedTap> {
        if !response.contains_key(http::header::CONTENT_TYPE) {
            return None;
        }
        let format = match MediaType::of(response) {
            MediaType::Json => Format::Json(None),
            media_type @ (MediaType::Yaml | MediaType::Cbor) => {
                Format::Whole(media_type, Vec::new())
            }
            MediaType::Protobuf => Format::Protobuf(Vec::new()),
            MediaType::Other => return None,
        };
        let finder = Finder { format, found: None };
        let decoder = Decoder::new(Encoding::of(response), finder)?;
        Some(CreatedTap(TapState::Goes(decoder)))
    }

    /// Takes the next bytes of the response.
    pub fn data(&mut self, data: &[u8]) {
        if let TapState::Goes(decoder) = &mut self.0
            && decoder.push(data).is_err()
        {
            // It has found what it looks for, or that it is not there.
            self.0 = TapState::Ended(decoder.target().found.take());
        }
    }

    /// Returns what was found; `None` if the response has no object.
    pub fn finish(self) -> Option<CreatedResponse> {
        match self.0 {
            TapState::Ended(answered) => answered,
            TapState::Goes(mut decoder) => {
                // It may hold back its last bytes; how it ends does not matter.
                let _ = decoder.end();
                let Finder { format, found } = decoder.target();
                match format {
                    Format::Whole(media_type, bytes) => {
                        converted(*media_type, bytes).map(CreatedResponse::Object)
                    }
                    Format::Json(_) | Format::Protobuf(_) => found.take(),
                }
            }
        }
    }
}

/// What a look at a part of the response has come to.
enum Lookup {
    Found(Created),
    /// It is no object, or cannot be read.
    Nothing,
    /// So much of it is not kept.
    TooLong,
    More,
}

impl Write for Finder {
    /// Fails when no more of the response is needed.
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        let enough = || Err(io::Error::from(io::ErrorKind::StorageFull));
        let look = match &mut self.format {
            Format::Json(scanner) => match scanner {
                None => match json::of_built_in(piece) {
                    Some(created) => Lookup::Found(created),
                    None => scanner.insert(Box::default()).look(piece),
                },
                Some(scanner) => scanner.look(piece),
            },
            Format::Whole(_, bytes) if bytes.len() + piece.len() > KEPT => Lookup::TooLong,
            Format::Whole(_, bytes) => {
                bytes.extend_from_slice(piece);
                Lookup::More
            }
            Format::Protobuf(message) => {
                message.extend_from_slice(piece);
                match protobuf::look(message) {
                    Lookup::More if message.len() > KEPT => Lookup::TooLong,
                    look => look,
                }
            }
        };
        match look {
            Lookup::More => Ok(piece.len()),
            Lookup::Nothing => enough(),
            Lookup::TooLong => {
                self.found = Some(CreatedResponse::TooLong);
                enough()
            }
            Lookup::Found(created) => {
                self.found = Some(CreatedResponse::Object(created));
                enough()
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Whether an object of this kind is one that was created, rather than what is said of it.
fn is_object(kind: &str) -> bool {
    !kind.is_empty() && kind != "Status" && kind != "Table" && !kind.ends_with("List")
}

/// Finds the name in an object of another format, which is complete.
fn converted(media_type: MediaType, bytes: &[u8]) -> Option<Created> {
    let json = decode::to_json(media_type, bytes, KEPT * 8).ok()?.json;
    match json::Scanner::default().look(&json) {
        Lookup::Found(created) => Some(created),
        Lookup::Nothing | Lookup::TooLong | Lookup::More => None,
    }
}

#[cfg(test)]
mod tests;
