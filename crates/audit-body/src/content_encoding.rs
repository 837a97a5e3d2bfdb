//! Decompresses bodies according to `Content-Encoding`, for the record only.

use std::io::{self, Write};

use flate2::write::{MultiGzDecoder, ZlibDecoder};
use http::{HeaderMap, header};

/// The compression of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// Not compressed.
    Identity,
    /// `gzip`, which kube-apiserver uses for long responses.
    Gzip,
    /// `deflate`, in the zlib format.
    Deflate,
    /// `zstd`
    Zstd,
    /// Another encoding, or several of them.
    Unknown,
}

impl Encoding {
    /// Reads the encoding from the headers of a message.
    pub fn of(headers: &HeaderMap) -> Encoding {
        let Some(value) = headers.get(header::CONTENT_ENCODING) else { return Encoding::Identity };
        match value.as_bytes().trim_ascii().to_ascii_lowercase().as_slice() {
            b"" | b"identity" => Encoding::Identity,
            b"gzip" | b"x-gzip" => Encoding::Gzip,
            b"deflate" => Encoding::Deflate,
            b"zstd" => Encoding::Zstd,
            _ => Encoding::Unknown,
        }
    }
}

/// Writes decompressed bytes to `W` while compressed ones arrive. `W` stops decompression by an
/// error, which limits decompression bombs.
pub(crate) enum Decoder<W: Write> {
    Identity(W),
    Gzip(Box<MultiGzDecoder<W>>),
    Deflate(Box<ZlibDecoder<W>>),
    Zstd(Box<zstd::stream::write::Decoder<'static, W>>),
}

impl<W: Write> Decoder<W> {
    /// Creates a decoder; `None` for an unknown encoding.
    pub(crate) fn new(encoding: Encoding, target: W) -> Option<Decoder<W>> {
        Some(match encoding {
            Encoding::Identity => Decoder::Identity(target),
            Encoding::Gzip => Decoder::Gzip(Box::new(MultiGzDecoder::new(target))),
            Encoding::Deflate => Decoder::Deflate(Box::new(ZlibDecoder::new(target))),
            Encoding::Zstd => {
                Decoder::Zstd(Box::new(zstd::stream::write::Decoder::new(target).ok()?))
            }
            Encoding::Unknown => return None,
        })
    }

    /// Takes the next bytes from the wire.
    ///
    /// # Errors
    /// The bytes are not valid, or the target accepts no more.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Decoder::Identity(target) => target.write_all(bytes),
            Decoder::Gzip(decoder) => decoder.write_all(bytes),
            Decoder::Deflate(decoder) => decoder.write_all(bytes),
            Decoder::Zstd(decoder) => decoder.write_all(bytes),
        }
    }

    /// Ends the body.
    ///
    /// # Errors
    /// Like [`Decoder::push`], and if the end is missing.
    pub(crate) fn end(&mut self) -> io::Result<()> {
        match self {
            Decoder::Identity(_) => Ok(()),
            Decoder::Gzip(decoder) => decoder.try_finish(),
            Decoder::Deflate(decoder) => decoder.try_finish(),
            Decoder::Zstd(decoder) => decoder.flush(),
        }
    }

    /// Returns the target.
    pub(crate) fn target(&mut self) -> &mut W {
        match self {
            Decoder::Identity(target) => target,
            Decoder::Gzip(decoder) => decoder.get_mut(),
            Decoder::Deflate(decoder) => decoder.get_mut(),
            Decoder::Zstd(decoder) => decoder.get_mut(),
        }
    }
}

#[cfg(test)]
mod tests {
    use flate2::Compression;
    use flate2::write::{GzEncoder, ZlibEncoder};

    use super::*;

    fn decoded(encoding: Encoding, bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut decoder = Decoder::new(encoding, Vec::new()).unwrap();
        for piece in bytes.chunks(3) {
            decoder.push(piece)?;
        }
        decoder.end()?;
        Ok(std::mem::take(decoder.target()))
    }

    #[test]
    fn each_encoding_is_undone() {
        let text = b"{\"kind\":\"Pod\"}".repeat(50);
        let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
        gzip.write_all(&text).unwrap();
        let gzip = gzip.finish().unwrap();
        assert_eq!(decoded(Encoding::Gzip, &gzip).unwrap(), text);
        let mut zlib = ZlibEncoder::new(Vec::new(), Compression::default());
        zlib.write_all(&text).unwrap();
        assert_eq!(decoded(Encoding::Deflate, &zlib.finish().unwrap()).unwrap(), text);
        let zstd = zstd::encode_all(&text[..], 1).unwrap();
        assert_eq!(decoded(Encoding::Zstd, &zstd).unwrap(), text);
        assert_eq!(decoded(Encoding::Identity, &text).unwrap(), text);
        for encoding in [Encoding::Gzip, Encoding::Deflate, Encoding::Zstd] {
            assert!(decoded(encoding, b"no compression at all").is_err(), "{encoding:?}");
        }
        assert!(decoded(Encoding::Gzip, &gzip[..gzip.len() - 9]).is_err(), "cut off");
    }

    #[test]
    fn the_header_names_the_encoding() {
        let of = |value: &'static str| {
            Encoding::of(&HeaderMap::from_iter([(
                header::CONTENT_ENCODING,
                value.parse().unwrap(),
            )]))
        };
        assert_eq!(Encoding::of(&HeaderMap::new()), Encoding::Identity);
        assert_eq!((of("GZIP"), of("zstd")), (Encoding::Gzip, Encoding::Zstd));
        assert_eq!((of("br"), of("gzip, gzip")), (Encoding::Unknown, Encoding::Unknown));
    }
}
