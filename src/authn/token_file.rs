//! Static bearer tokens from `--token-auth-file`.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};

use super::UserInfo;

/// The tokens of a file and whose they are. Tokens are held and looked up by their SHA-256 only,
/// so that neither memory nor timing gives one away.
pub struct TokenFile {
    users: HashMap<[u8; 32], Arc<UserInfo>>,
}

/// Why a token file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TokenFileError {
    /// It cannot be read.
    #[error("{path}: cannot read the token file: {source}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A line is not as it should be.
    #[error("{path}:{line}: {problem}; write one token a line: token,user,uid,\"group1,group2\"", path = path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
        /// What is wrong with it.
        problem: String,
    },
}

impl TokenFile {
    /// Reads the CSV file at `path`: token, user name, UID, and groups in one cell.
    ///
    /// As in kube-apiserver further columns are ignored, a line without a token is skipped, and
    /// of lines with the same token the last one counts, both with a warning.
    ///
    /// # Errors
    /// Where the file cannot be read, or a line has fewer than three columns.
    pub fn load(path: &Path) -> Result<TokenFile, TokenFileError> {
        let text = std::fs::read(path)
            .map_err(|source| TokenFileError::Read { path: path.into(), source })?;
        TokenFile::parse(&text, path)
    }

    fn parse(text: &[u8], path: &Path) -> Result<TokenFile, TokenFileError> {
        let wrong = |line, problem| TokenFileError::Line { path: path.into(), line, problem };
        let mut reader =
            csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(text);
        let mut users = HashMap::new();
        for record in reader.byte_records() {
            let record = record.map_err(|error| {
                // The error's own text may quote the line, and with it a token.
                let line = error.position().map_or(0, csv::Position::line);
                wrong(line, "this is no CSV".to_owned())
            })?;
            let line = record.position().map_or(0, csv::Position::line);
            let cell = |index: usize| {
                let text = record.get(index).unwrap_or_default();
                String::from_utf8(text.to_vec())
                    .map_err(|_| wrong(line, format!("column {} is no UTF-8", index + 1)))
            };
            if record.len() < 3 {
                return Err(wrong(line, format!("{} columns, but 3 are needed", record.len())));
            }
            if record[0].is_empty() {
                tracing::warn!(file = %path.display(), line, "skipping a line without a token");
                continue;
            }
            let groups = match record.len() {
                3 => Vec::new(),
                _ => cell(3)?.split(',').map(str::to_owned).collect(),
            };
            let user =
                UserInfo { username: cell(1)?, uid: cell(2)?, groups, ..UserInfo::default() };
            let user = Arc::new(user.into_authenticated());
            if users.insert(hash(&record[0]), user).is_some() {
                tracing::warn!(file = %path.display(), line, "this token stands in an earlier line too; this one counts");
            }
        }
        Ok(TokenFile { users })
    }

    /// Whose token this is.
    pub fn user(&self, token: &[u8]) -> Option<&Arc<UserInfo>> {
        self.users.get(&hash(token))
    }
}

fn hash(token: &[u8]) -> [u8; 32] {
    let digest = digest(&SHA256, token);
    digest.as_ref().try_into().expect("SHA-256 has 32 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<TokenFile, TokenFileError> {
        TokenFile::parse(text.as_bytes(), Path::new("tokens.csv"))
    }

    #[test]
    fn lines_are_read_as_kube_apiserver_reads_them() {
        let file = parse(concat!(
            "t1,u1,uid1\nt3,u3,uid3,\"g1,g2\"\nt5,u5,uid5,g5,x,y\nt6,u6,uid6,\n,u8,uid8\n",
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
            let user = file.user(token.as_bytes()).unwrap();
            assert_eq!((user.username.as_str(), user.uid.as_str()), (*name, *uid), "{token}");
            let with_adder: Vec<&str> =
                groups.iter().copied().chain(["system:authenticated"]).collect();
            assert_eq!(user.groups, with_adder, "{token}");
        }
        assert!(file.user(b"").is_none() && file.user(b"unknown").is_none());
    }

    #[test]
    fn errors_name_the_line_and_never_the_token() {
        let error = parse("t1,u1,uid1\nsecret-token,u7\n").map(drop).unwrap_err().to_string();
        assert_eq!(
            error,
            "tokens.csv:2: 2 columns, but 3 are needed; write one token a line: token,user,uid,\"group1,group2\""
        );
    }
}
