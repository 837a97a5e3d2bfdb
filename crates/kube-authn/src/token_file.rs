//! Static bearer tokens from `--token-auth-file`.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use csv_core::{ReadRecordResult, Reader};
use zeroize::Zeroizing;

use super::token_cache::{TokenCache, TokenId};
use super::{User, UserInfo};

/// The tokens of a file and their users. Tokens are looked up by their [`TokenId`] and not stored;
/// the buffers that contained them are overwritten.
pub struct TokenFile {
    users: HashMap<TokenId, Arc<User>>,
}

/// Why a token file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TokenFileError {
    /// The file cannot be read.
    #[error("{path}: cannot read the token file: {source}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// A line is invalid.
    #[error("{path}:{line}: {problem}; write one token per line: token,user,uid,\"group1,group2\"", path = path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
        /// The error.
        problem: String,
    },
}

impl TokenFile {
    /// Loads the CSV file at `path`: token, user name, UID, and groups in one cell.
    ///
    /// Like in kube-apiserver, further columns are ignored, a line without a token is skipped, and
    /// the last of several lines with the same token wins, both with a warning.
    ///
    /// `ids` computes the identifiers of tokens.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read, or a line has fewer than three columns.
    pub fn load(path: &Path, ids: &TokenCache) -> Result<TokenFile, TokenFileError> {
        let text = watched_files::regular_file::read(path)
            .map_err(|source| TokenFileError::Read { path: path.into(), source })?;
        TokenFile::parse(&Zeroizing::new(text), path, ids)
    }

    fn parse(text: &[u8], path: &Path, ids: &TokenCache) -> Result<TokenFile, TokenFileError> {
        let mut users = HashMap::new();
        let mut lines = Lines::new(text);
        while let Some((line, cells)) = lines.next() {
            let wrong = |problem| TokenFileError::Line { path: path.into(), line, problem };
            let cell = |index: usize| {
                String::from_utf8(cells[index].to_vec())
                    .map_err(|_| wrong(format!("column {} is not UTF-8", index + 1)))
            };
            if cells.len() < 3 {
                return Err(wrong(format!("{} columns, but 3 are needed", cells.len())));
            }
            if cells[0].is_empty() {
                tracing::warn!(file = %path.display(), line, "skipped a line without a token");
                continue;
            }
            let groups = match cells.len() {
                3 => Vec::new(),
                _ => cell(3)?.split(',').map(str::to_owned).collect(),
            };
            let user =
                UserInfo { username: cell(1)?, uid: cell(2)?, groups, ..UserInfo::default() };
            let user = Arc::new(user.into_authenticated().into());
            if users.insert(ids.id(cells[0]), user).is_some() {
                tracing::warn!(file = %path.display(), line, "the token is also in an earlier line; this line overrides it");
            }
        }
        Ok(TokenFile { users })
    }

    /// Returns the user of a token.
    pub fn user(&self, id: &TokenId) -> Option<&Arc<User>> {
        self.users.get(id)
    }
}

/// Parses the lines of a CSV text into buffers that are overwritten when dropped.
struct Lines<'t> {
    rest: &'t [u8],
    reader: Reader,
    cells: Zeroizing<Vec<u8>>,
    ends: Vec<usize>,
}

impl<'t> Lines<'t> {
    fn new(text: &'t [u8]) -> Lines<'t> {
        let most_cells = 1 + text.iter().filter(|byte| **byte == b',').count();
        Lines {
            rest: text,
            reader: Reader::new(),
            // No line is longer than the text.
            cells: Zeroizing::new(vec![0; text.len()]),
            ends: vec![0; most_cells],
        }
    }

    /// Returns the number of the next line, from 1, and its cells.
    fn next(&mut self) -> Option<(u64, Vec<&[u8]>)> {
        let line = self.reader.line();
        let (mut bytes, mut count) = (0, 0);
        loop {
            let (cells, ends) = (&mut self.cells[bytes..], &mut self.ends[count..]);
            let (result, read, written, ended) = self.reader.read_record(self.rest, cells, ends);
            self.rest = &self.rest[read..];
            (bytes, count) = (bytes + written, count + ended);
            match result {
                // Another call without input returns the end.
                ReadRecordResult::InputEmpty => {}
                ReadRecordResult::Record => break,
                ReadRecordResult::End => return None,
                ReadRecordResult::OutputFull | ReadRecordResult::OutputEndsFull => {
                    unreachable!("no line is longer than the text, or has more cells than commas")
                }
            }
        }
        let starts = std::iter::once(0).chain(self.ends[..count].iter().copied());
        let cells = starts.zip(&self.ends[..count]);
        Some((line, cells.map(|(start, end)| &self.cells[start..*end]).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<(TokenFile, TokenCache), TokenFileError> {
        let ids = TokenCache::with_random_key(Arc::default());
        let file = TokenFile::parse(text.as_bytes(), Path::new("tokens.csv"), &ids)?;
        Ok((file, ids))
    }

    #[test]
    fn lines_are_read_as_kube_apiserver_reads_them() {
        let (file, ids) = parse(concat!(
            "t1,u1,uid1\r\n\nt3,u3,uid3,\"g1,g2\"\nt5,u5,uid5,g5,x,y\nt6,u6,uid6,\n,u8,uid8\n",
            "again,first,1\nagain,second,2\n\"a\"\"b,c\",quoted,\n",
        ))
        .unwrap();
        let cases: &[(&str, &str, &str, &[&str])] = &[
            ("t1", "u1", "uid1", &[]),
            ("t3", "u3", "uid3", &["g1", "g2"]),
            ("t5", "u5", "uid5", &["g5"]),
            ("t6", "u6", "uid6", &[""]),
            ("again", "second", "2", &[]),
            ("a\"b,c", "quoted", "", &[]),
        ];
        for (token, name, uid, groups) in cases {
            let user = file.user(&ids.id(token.as_bytes())).unwrap();
            assert_eq!((user.username.as_str(), user.uid.as_str()), (*name, *uid), "{token}");
            let with_adder: Vec<&str> =
                groups.iter().copied().chain(["system:authenticated"]).collect();
            assert_eq!(user.groups, with_adder, "{token}");
        }
        for unknown in [&b""[..], b"unknown"] {
            assert!(file.user(&ids.id(unknown)).is_none());
        }
        let (file, ids) = parse("a,b,c,\"d\n,e").unwrap();
        let user = file.user(&ids.id(b"a")).unwrap();
        assert_eq!(user.groups, ["d\n", "e", "system:authenticated"], "no quote at the end");
        assert!(parse("").unwrap().0.users.is_empty());
    }

    #[test]
    fn errors_name_the_line_and_never_the_token() {
        let error = parse("t1,u1,uid1\nsecret-token,u7\n").map(drop).unwrap_err().to_string();
        assert_eq!(
            error,
            "tokens.csv:2: 2 columns, but 3 are needed; write one token per line: token,user,uid,\"group1,group2\""
        );
    }
}
