//! Follows the paths of values that are left out or redacted.

use super::{Compactor, MAX_RAW_NAME, Places, Replacement, State};
use crate::escape::Unescaper;
use crate::managed_fields::{self, Action};
use crate::paths::Place;
use crate::redacted::Redacted;

impl Compactor {
    /// Handles the opening quote of a key.
    pub(super) fn key(&mut self, piece: &[u8], at: usize) {
        let places = self.frames.last().map_or(Places::NOWHERE, |frame| frame.places);
        self.places = Places::NOWHERE;
        if places != Places::NOWHERE {
            self.wanted = Some(at + 1);
            self.wanted_before.clear();
        }
        if places.managed_fields != Place::NOWHERE {
            self.copy_to(piece, at);
            self.before_key = (!self.is_full()).then_some(self.text.len());
        }
        self.in_key = true;
        self.state = State::String;
    }

    /// Called before the first and after each element of an array.
    pub(super) fn next_element(&mut self) {
        let places = self.frames.last().map_or(Places::NOWHERE, |frame| frame.places);
        self.places = Places::NOWHERE;
        if let Some(paths) = self.managed_fields {
            self.places.managed_fields = paths.element(places.managed_fields);
        }
        if let Some(paths) = &self.redact {
            self.places.redact = paths.element(places.redact);
        }
    }

    /// Handles the closing quote of a key or of the value of `kind`.
    pub(super) fn read_wanted(&mut self, last: &[u8]) {
        let joined;
        let raw = if self.wanted_before.is_empty() {
            last
        } else {
            joined = [&self.wanted_before, last].concat();
            &joined
        };
        let unescaped;
        let content = if raw.len() <= MAX_RAW_NAME && raw.contains(&b'\\') {
            unescaped = unescape(raw);
            &unescaped
        } else {
            raw
        };
        if self.in_key { self.at_key(content) } else { self.at_kind(content) }
    }

    fn at_key(&mut self, key: &[u8]) {
        let before_key = self.before_key.take();
        let Some(frame) = self.frames.last_mut() else { return };
        if let Some(paths) = &self.redact {
            self.places.redact = paths.member(frame.places.redact, key);
        }
        let Some(paths) = self.managed_fields else { return };
        let place = paths.member(frame.places.managed_fields, key);
        if paths.action(place) != Some(Action::Omit) {
            self.places.managed_fields = place;
            return;
        }
        self.places = Places::NOWHERE;
        if let Some(before_key) = before_key {
            self.text.truncate(before_key);
            match self.text.last() {
                Some(b',') => _ = self.text.pop(),
                _ => frame.skip_comma = true,
            }
        }
        self.instead = Some(Replacement::Omit);
        self.instead_depth = self.frames.len();
    }

    fn at_kind(&mut self, kind: &[u8]) {
        if let Some(frame) = self.frames.first_mut() {
            frame.places.managed_fields = managed_fields::place_for_kind(kind);
        }
    }

    /// Called before a value that a path leads to.
    pub(super) fn enter(&mut self, piece: &[u8], at: usize) {
        let byte = piece[at];
        if byte == b'"'
            && let Some(paths) = self.managed_fields
            && paths.action(self.places.managed_fields) == Some(Action::Kind)
        {
            self.wanted = Some(at + 1);
            self.wanted_before.clear();
        }
        let Some(paths) = &self.redact else { return };
        let place = self.places.redact;
        // If a scalar is where a container of secrets is expected, it is treated as a secret. A
        // body that is only a string may be an object that was encoded twice.
        let is_secret = paths.action(place).is_some()
            || (!matches!(byte, b'{' | b'[') && paths.action_below(place).is_some())
            || (byte == b'"' && self.frames.is_empty());
        // `null` is not a secret; patches delete members with it.
        if is_secret && byte != b'n' {
            self.copy_to(piece, at);
            self.instead = Some(Replacement::Redact(Box::new(Redacted::new(byte == b'"'))));
            self.instead_depth = self.frames.len();
            self.places = Places::NOWHERE;
        }
    }

    /// Called after a value that is not recorded as it is.
    pub(super) fn leave(&mut self, piece: &[u8], at: usize) {
        self.copy_to(piece, at);
        self.instead_depth = usize::MAX;
        if let Some(Replacement::Redact(redacted)) = self.instead.take() {
            self.append(redacted.replacement().as_bytes());
        }
    }
}

fn unescape(raw: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(raw.len());
    let mut unescaper = Unescaper::default();
    unescaper.decode(raw, |piece| text.extend_from_slice(piece));
    unescaper.end(|piece| text.extend_from_slice(piece));
    text
}
