//! The name of a created object, read from the response while it is forwarded. Only the response
//! tells reliably which object a request has created; the name in the request body is compared with
//! it.

use std::io::{self, Write};

use http::HeaderMap;

use super::content_encoding::{Decoder, Encoding};
use super::decode;
use super::object::MediaType;

mod json;
mod protobuf;

/// A created object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Created {
    /// `metadata.name`; empty for kinds without a name, such as reviews.
    pub name: String,
    /// `metadata.generateName`
    pub(crate) generate_name: String,
}

impl Created {
    /// Whether the API server has probably generated the name: it is `generateName` followed by
    /// five characters.
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

/// The created object in a response.
#[derive(Debug, PartialEq, Eq)]
pub enum CreatedResponse {
    /// The object.
    Object(Created),
    /// The name was not within the bytes that are kept, in a format whose fields have no fixed
    /// order.
    TooLong,
}

/// Reads a response until the name of the object is known.
pub struct CreatedTap(TapState);

enum TapState {
    Goes(Decoder<Finder>),
    Ended(Option<CreatedResponse>),
}

/// How much of a response in YAML, CBOR or protobuf is kept to find the name in it.
const KEPT: usize = 256 << 10;

struct Finder {
    format: Format,
    found: Option<CreatedResponse>,
}

enum Format {
    /// The scanner is only created if the first piece does not have the name in the usual place.
    Json(Option<Box<json::Scanner>>),
    /// YAML or CBOR, decoded at the end.
    Whole(MediaType, Vec<u8>),
    /// Searched again after each piece.
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
            // The name was found, or the response does not have it.
            self.0 = TapState::Ended(decoder.target().found.take());
        }
    }

    /// Returns what was found; `None` if the response has no object.
    pub fn finish(self) -> Option<CreatedResponse> {
        match self.0 {
            TapState::Ended(answered) => answered,
            TapState::Goes(mut decoder) => {
                // The decoder may have buffered the last bytes. Errors at the end do not matter.
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

/// The result of searching the part of the response that has arrived.
enum Lookup {
    Found(Created),
    /// The response is not an object, or cannot be decoded.
    Nothing,
    /// The name is not within the bytes that are kept.
    TooLong,
    More,
}

impl Write for Finder {
    /// Fails when no more of the response is needed, to stop decompression.
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

/// Whether an object of this kind is the created object, and not a `Status` or similar.
fn is_object(kind: &str) -> bool {
    !kind.is_empty() && kind != "Status" && kind != "Table" && !kind.ends_with("List")
}

/// Finds the name in a complete object in YAML or CBOR.
fn converted(media_type: MediaType, bytes: &[u8]) -> Option<Created> {
    let json = decode::to_json(media_type, bytes, KEPT * 8).ok()?.json;
    match json::Scanner::default().look(&json) {
        Lookup::Found(created) => Some(created),
        Lookup::Nothing | Lookup::TooLong | Lookup::More => None,
    }
}

#[cfg(test)]
mod tests;
