//! The claims of a token. Registered claims must have the types into which kube-apiserver's library
//! decodes them, whether they are used or not.
//!
//! That library ignores the case of names, and the last of duplicate claims wins. Such tokens are
//! rejected here, because other decoders could interpret them differently.

use std::collections::{HashMap, HashSet};

use serde::de::Error as _;
use serde_json::value::RawValue;
use serde_json::{Error, Map, Value};

use crate::jose_json::AllMembers;

/// Registered claims that are decoded in any case.
const REGISTERED: [&str; 10] =
    ["iss", "sub", "aud", "exp", "iat", "nbf", "nonce", "at_hash", CLAIM_NAMES, CLAIM_SOURCES];
/// The claim that maps the names of distributed claims to names of sources.
pub(super) const CLAIM_NAMES: &str = "_claim_names";
/// The claim that maps names of sources to their addresses.
pub(super) const CLAIM_SOURCES: &str = "_claim_sources";

/// The registered claims that are used.
#[derive(Debug, Default)]
pub(super) struct Registered {
    pub(super) audiences: Vec<String>,
    /// In seconds since 1970.
    pub(super) expires: Option<i64>,
    pub(super) not_before: Option<i64>,
}

/// The source of a distributed claim.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Source {
    pub(super) endpoint: String,
    pub(super) access_token: String,
}

impl Registered {
    /// Decodes the registered claims of a token.
    ///
    /// # Errors
    /// Returns an error if one of them has the wrong type, occurs twice, or is spelled in another
    /// case.
    pub(super) fn parse(claims: &[u8]) -> Result<Registered, Error> {
        let AllMembers(members) = serde_json::from_slice(claims)?;
        let mut registered = Registered::default();
        let mut seen = HashSet::new();
        let (mut names, mut sources) = (HashMap::new(), HashMap::new());
        for (name, raw) in members {
            let folded = fold(&name);
            let Some(known) = REGISTERED.into_iter().find(|known| *known == folded) else {
                continue;
            };
            if known != name || !seen.insert(known) {
                let problem = format!("the claim {known:?} occurs twice, or in different case");
                return Err(Error::custom(problem));
            }
            registered.decode(known, raw, &mut names, &mut sources)?;
        }
        match names.values().find(|source| !sources.contains_key(*source)) {
            Some(_) => Err(Error::custom("_claim_names has a source that _claim_sources lacks")),
            None => Ok(registered),
        }
    }

    fn decode(
        &mut self,
        name: &str,
        raw: &RawValue,
        names: &mut HashMap<String, String>,
        sources: &mut HashMap<String, Source>,
    ) -> Result<(), Error> {
        match name {
            "aud" => self.audiences = audiences(raw)?,
            "exp" => self.expires = Some(seconds(raw)?),
            "iat" => {
                seconds(raw)?;
            }
            "nbf" if raw.get() == "null" => {}
            "nbf" => self.not_before = Some(seconds(raw)?),
            CLAIM_NAMES => *names = claim_names(&serde_json::from_str(raw.get())?)?,
            CLAIM_SOURCES => *sources = claim_sources(&serde_json::from_str(raw.get())?)?,
            _ => {
                serde_json::from_str::<Option<String>>(raw.get())?;
            }
        }
        Ok(())
    }
}

/// Decodes a string or a list of strings. Like in Go, `null` is an empty string.
fn audiences(raw: &RawValue) -> Result<Vec<String>, Error> {
    if raw.get().starts_with('[') {
        let list: Vec<Option<String>> = serde_json::from_str(raw.get())?;
        return Ok(list.into_iter().map(Option::unwrap_or_default).collect());
    }
    let text: Option<String> = serde_json::from_str(raw.get())?;
    Ok(vec![text.unwrap_or_default()])
}

/// Decodes a time in seconds since 1970, which can be a number in quotes.
fn seconds(raw: &RawValue) -> Result<i64, Error> {
    let text: String = match raw.get().starts_with('"') {
        true => serde_json::from_str(raw.get())?,
        false => raw.get().to_owned(),
    };
    let is_number = text.starts_with(|c: char| c.is_ascii_digit() || c == '-')
        && text.ends_with(|c: char| c.is_ascii_digit())
        && serde_json::from_str::<&RawValue>(&text).is_ok();
    if !is_number {
        return Err(Error::custom("a time is no number"));
    }
    if let Ok(seconds) = text.parse() {
        return Ok(seconds);
    }
    let seconds: f64 = text.parse().map_err(|_| Error::custom("a time is no number"))?;
    match seconds {
        seconds if !seconds.is_finite() => Err(Error::custom("a time is too large")),
        // Like Go's conversion of numbers that are out of range.
        seconds if seconds >= i64::MAX as f64 || seconds < i64::MIN as f64 => Ok(i64::MIN),
        seconds => Ok(seconds as i64),
    }
}

/// Decodes the names of distributed claims and of their sources.
///
/// # Errors
/// Returns an error if the value has the wrong type, or a source has no name.
pub(super) fn claim_names(value: &Value) -> Result<HashMap<String, String>, Error> {
    let Some(object) = object(value)? else { return Ok(HashMap::new()) };
    let named = object.iter().map(|(claim, source)| match source {
        Value::String(source) if !source.is_empty() => Ok((claim.clone(), source.clone())),
        _ => Err(Error::custom("_claim_names is no map of strings")),
    });
    named.collect()
}

/// Decodes the sources, by their names.
///
/// # Errors
/// Returns an error if the value has the wrong type.
pub(super) fn claim_sources(value: &Value) -> Result<HashMap<String, Source>, Error> {
    let Some(sources) = object(value)? else { return Ok(HashMap::new()) };
    let parsed = sources.iter().map(|(name, source)| {
        let mut parsed = Source::default();
        for (member, value) in object(source)?.into_iter().flatten() {
            let text = || match value {
                Value::String(text) => Ok(text.clone()),
                Value::Null => Ok(String::new()),
                _ => Err(Error::custom("_claim_sources has a member of the wrong type")),
            };
            match fold(member).as_str() {
                "endpoint" => parsed.endpoint = text()?,
                "access_token" => parsed.access_token = text()?,
                "jwt" => {
                    text()?;
                }
                _ => {}
            }
        }
        Ok((name.clone(), parsed))
    });
    parsed.collect()
}

fn object(value: &Value) -> Result<Option<&Map<String, Value>>, Error> {
    match value {
        Value::Null => Ok(None),
        Value::Object(object) => Ok(Some(object)),
        _ => Err(Error::custom("_claim_names or _claim_sources is no object")),
    }
}

/// Folds a member name like Go does for comparisons: two non-ASCII letters fold into ASCII.
pub(super) fn fold(name: &str) -> String {
    let folded = name.chars().map(|character| match character {
        'ſ' => 's',
        '\u{212a}' => 'k',
        other => other.to_ascii_lowercase(),
    });
    folded.collect()
}

#[cfg(test)]
mod tests;
