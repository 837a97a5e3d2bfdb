//! Tokens of a YAML stream: the scanner of YAML 1.1 as in go-yaml v2, a port of libyaml.

use std::collections::{HashMap, VecDeque};

use super::Error;
use super::reader::{Mark, Reader};

/// go-yaml's limit for flow collections in each other, and for indentation levels.
const MAX_LEVELS: usize = 10_000;

/// The characters within which the `:` of a simple key has to follow.
const MAX_KEY: usize = 1024;

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    StreamStart,
    StreamEnd,
    Version(u8, u8),
    TagDirective { handle: Vec<u8>, prefix: Vec<u8> },
    DocumentStart,
    DocumentEnd,
    BlockSequenceStart,
    BlockMappingStart,
    BlockEnd,
    FlowSequenceStart,
    FlowSequenceEnd,
    FlowMappingStart,
    FlowMappingEnd,
    BlockEntry,
    FlowEntry,
    Key,
    Value,
    Alias(Vec<u8>),
    Anchor(Vec<u8>),
    Tag { handle: Vec<u8>, suffix: Vec<u8> },
    Scalar { value: Vec<u8>, plain: bool },
}

/// A place where a key may have begun that is not marked by `?`.
#[derive(Debug, Clone, Copy, Default)]
struct SimpleKey {
    possible: bool,
    required: bool,
    token: usize,
    mark: Mark,
}

pub(super) struct Scanner<'b> {
    pub(super) reader: Reader<'b>,
    started: bool,
    tokens: VecDeque<Token>,
    /// Whether the first of `tokens` is settled.
    available: bool,
    /// How many tokens have been taken.
    taken: usize,
    pub(super) flow_level: usize,
    pub(super) indent: isize,
    indents: Vec<isize>,
    pub(super) simple_key_allowed: bool,
    /// One for each flow level.
    simple_keys: Vec<SimpleKey>,
    /// Indexes of `simple_keys` by the number of their token, with go-yaml's own omissions.
    by_token: HashMap<usize, usize>,
}

type Scan<T> = Result<T, Error>;

impl<'b> Scanner<'b> {
    pub(super) fn new(input: &'b [u8]) -> Scanner<'b> {
        Scanner {
            reader: Reader::new(input),
            started: false,
            tokens: VecDeque::new(),
            available: false,
            taken: 0,
            flow_level: 0,
            indent: -1,
            indents: Vec::new(),
            simple_key_allowed: false,
            simple_keys: Vec::new(),
            by_token: HashMap::new(),
        }
    }

    /// The next token, which stays.
    pub(super) fn peek(&mut self) -> Scan<&Token> {
        if !self.available {
            self.fetch_more()?;
        }
        self.tokens.front().ok_or(Error("no token"))
    }

    /// Takes the token that [`Scanner::peek`] has shown.
    pub(super) fn take(&mut self) -> Scan<Token> {
        self.available = false;
        self.taken += 1;
        self.tokens.pop_front().ok_or(Error("no token"))
    }

    fn fetch_more(&mut self) -> Scan<()> {
        loop {
            if !self.tokens.is_empty() {
                // The first token may turn out to begin a key.
                let Some(&index) = self.by_token.get(&self.taken) else { break };
                if !self.is_valid(index)? {
                    break;
                }
            }
            self.fetch_next()?;
        }
        self.available = true;
        Ok(())
    }

    fn is_valid(&mut self, index: usize) -> Scan<bool> {
        let at = self.reader.mark;
        let key = self.simple_keys.get_mut(index).ok_or(Error("internal error of go-yaml"))?;
        if !key.possible {
            return Ok(false);
        }
        if key.mark.line < at.line || key.mark.index + MAX_KEY < at.index {
            if key.required {
                return Err(Error("could not find expected ':'"));
            }
            key.possible = false;
            return Ok(false);
        }
        Ok(true)
    }

    fn fetch_next(&mut self) -> Scan<()> {
        self.reader.ensure(1)?;
        if !self.started {
            self.started = true;
            self.simple_keys.push(SimpleKey::default());
            self.simple_key_allowed = true;
            self.tokens.push_back(Token::StreamStart);
            return Ok(());
        }
        self.skip_to_token()?;
        self.unroll(self.column());
        self.reader.ensure(4)?;
        let reader = &self.reader;
        let flow = self.flow_level > 0;
        let begins_line = reader.mark.column == 0;
        match reader.byte() {
            0 => self.stream_end(),
            b'%' if begins_line => {
                self.end_block()?;
                let token = self.directive()?;
                self.tokens.push_back(token);
                Ok(())
            }
            byte @ (b'-' | b'.') if reader.is_document_indicator() => {
                self.end_block()?;
                (0..3).for_each(|_| self.reader.skip());
                let is_start = byte == b'-';
                let token = if is_start { Token::DocumentStart } else { Token::DocumentEnd };
                self.tokens.push_back(token);
                Ok(())
            }
            b'[' => self.flow_start(Token::FlowSequenceStart),
            b'{' => self.flow_start(Token::FlowMappingStart),
            b']' => self.flow_end(Token::FlowSequenceEnd),
            b'}' => self.flow_end(Token::FlowMappingEnd),
            b',' => {
                self.remove_simple_key()?;
                self.indicator(Token::FlowEntry, true);
                Ok(())
            }
            b'-' if reader.is_blank_or_end(1) => self.block_entry(),
            b'?' if flow || reader.is_blank_or_end(1) => self.key(),
            b':' if flow || reader.is_blank_or_end(1) => self.value(),
            byte @ (b'*' | b'&') => {
                self.save_simple_key()?;
                self.simple_key_allowed = false;
                let name = self.anchor()?;
                let is_alias = byte == b'*';
                let token = if is_alias { Token::Alias(name) } else { Token::Anchor(name) };
                self.tokens.push_back(token);
                Ok(())
            }
            b'!' => {
                self.save_simple_key()?;
                self.simple_key_allowed = false;
                let token = self.tag()?;
                self.tokens.push_back(token);
                Ok(())
            }
            byte @ (b'|' | b'>') if !flow => {
                self.remove_simple_key()?;
                self.simple_key_allowed = true;
                let value = self.block_scalar(byte == b'|')?;
                self.tokens.push_back(Token::Scalar { value, plain: false });
                Ok(())
            }
            byte @ (b'\'' | b'"') => {
                self.save_simple_key()?;
                self.simple_key_allowed = false;
                let value = self.quoted_scalar(byte == b'\'')?;
                self.tokens.push_back(Token::Scalar { value, plain: false });
                Ok(())
            }
            _ if self.begins_plain_scalar() => {
                self.save_simple_key()?;
                self.simple_key_allowed = false;
                let value = self.plain_scalar()?;
                self.tokens.push_back(Token::Scalar { value, plain: true });
                Ok(())
            }
            _ => Err(Error("found character that cannot start any token")),
        }
    }

    fn begins_plain_scalar(&self) -> bool {
        let reader = &self.reader;
        match reader.byte() {
            b'-' => !reader.is_blank(1),
            b'?' | b':' => self.flow_level == 0 && !reader.is_blank_or_end(1),
            b',' | b'[' | b']' | b'{' | b'}' | b'#' | b'&' | b'*' | b'!' | b'|' | b'>' | b'\''
            | b'"' | b'%' | b'@' | b'`' => false,
            _ => !reader.is_blank_or_end(0),
        }
    }

    pub(super) fn column(&self) -> isize {
        self.reader.mark.column as isize
    }

    /// Passes over blanks, comments and line breaks.
    fn skip_to_token(&mut self) -> Scan<()> {
        loop {
            self.reader.ensure(1)?;
            if self.reader.mark.column == 0 && self.reader.buffer_begins_with_bom() {
                self.reader.skip();
            }
            self.reader.ensure(1)?;
            // Tabs do not indent.
            let tabs = self.flow_level > 0 || !self.simple_key_allowed;
            while self.reader.byte() == b' ' || (tabs && self.reader.byte() == b'\t') {
                self.reader.skip();
                self.reader.ensure(1)?;
            }
            self.comment()?;
            if !self.reader.is_break(0) {
                return Ok(());
            }
            self.reader.ensure(2)?;
            self.reader.skip_line();
            if self.flow_level == 0 {
                self.simple_key_allowed = true;
            }
        }
    }

    pub(super) fn comment(&mut self) -> Scan<()> {
        if self.reader.byte() == b'#' {
            while !self.reader.is_break_or_end(0) {
                self.reader.skip();
                self.reader.ensure(1)?;
            }
        }
        Ok(())
    }

    pub(super) fn blanks(&mut self) -> Scan<()> {
        self.reader.ensure(1)?;
        while self.reader.is_blank(0) {
            self.reader.skip();
            self.reader.ensure(1)?;
        }
        Ok(())
    }
}

/// Keys and levels.
impl Scanner<'_> {
    /// The number that the next token to be queued will have.
    fn next_number(&self) -> usize {
        self.taken + self.tokens.len()
    }

    /// Puts a token before the one of this number, or last where that has been taken.
    fn insert(&mut self, number: usize, token: Token) {
        match number.checked_sub(self.taken) {
            Some(at) if at <= self.tokens.len() => self.tokens.insert(at, token),
            _ => self.tokens.push_back(token),
        }
    }

    fn save_simple_key(&mut self) -> Scan<()> {
        let required = self.flow_level == 0 && self.indent == self.column();
        if !self.simple_key_allowed {
            return Ok(());
        }
        let mark = self.reader.mark;
        let key = SimpleKey { possible: true, required, token: self.next_number(), mark };
        self.remove_simple_key()?;
        let last = self.simple_keys.len() - 1;
        self.simple_keys[last] = key;
        self.by_token.insert(key.token, last);
        Ok(())
    }

    fn remove_simple_key(&mut self) -> Scan<()> {
        let Some(key) = self.simple_keys.last_mut().filter(|key| key.possible) else {
            return Ok(());
        };
        if key.required {
            return Err(Error("could not find expected ':'"));
        }
        key.possible = false;
        self.by_token.remove(&key.token);
        Ok(())
    }

    /// Begins a block collection at `column`, its token before that of `number`.
    fn roll(&mut self, column: isize, number: Option<usize>, token: Token) -> Scan<()> {
        if self.flow_level > 0 || self.indent >= column {
            return Ok(());
        }
        self.indents.push(self.indent);
        self.indent = column;
        if self.indents.len() > MAX_LEVELS {
            return Err(Error("exceeded max depth of 10000"));
        }
        match number {
            Some(number) => self.insert(number, token),
            None => self.tokens.push_back(token),
        }
        Ok(())
    }

    /// Ends the block collections that are indented deeper than `column`.
    fn unroll(&mut self, column: isize) {
        while self.flow_level == 0 && self.indent > column {
            self.tokens.push_back(Token::BlockEnd);
            self.indent = self.indents.pop().unwrap_or(-1);
        }
    }

    fn end_block(&mut self) -> Scan<()> {
        self.unroll(-1);
        self.remove_simple_key()?;
        self.simple_key_allowed = false;
        Ok(())
    }

    fn stream_end(&mut self) -> Scan<()> {
        if self.reader.mark.column != 0 {
            self.reader.mark.column = 0;
            self.reader.mark.line += 1;
        }
        self.end_block()?;
        self.tokens.push_back(Token::StreamEnd);
        Ok(())
    }

    /// A token of one character.
    fn indicator(&mut self, token: Token, simple_key_allowed: bool) {
        self.simple_key_allowed = simple_key_allowed;
        self.reader.skip();
        self.tokens.push_back(token);
    }

    fn flow_start(&mut self, token: Token) -> Scan<()> {
        self.save_simple_key()?;
        let (number, mark) = (self.next_number(), self.reader.mark);
        self.simple_keys.push(SimpleKey { token: number, mark, ..SimpleKey::default() });
        self.flow_level += 1;
        if self.flow_level > MAX_LEVELS {
            return Err(Error("exceeded max depth of 10000"));
        }
        self.indicator(token, true);
        Ok(())
    }

    fn flow_end(&mut self, token: Token) -> Scan<()> {
        self.remove_simple_key()?;
        if self.flow_level > 0 {
            self.flow_level -= 1;
            if let Some(key) = self.simple_keys.pop() {
                self.by_token.remove(&key.token);
            }
        }
        self.indicator(token, false);
        Ok(())
    }

    fn block_entry(&mut self) -> Scan<()> {
        if self.flow_level == 0 {
            if !self.simple_key_allowed {
                return Err(Error("block sequence entries are not allowed in this context"));
            }
            self.roll(self.column(), None, Token::BlockSequenceStart)?;
        }
        self.remove_simple_key()?;
        self.indicator(Token::BlockEntry, true);
        Ok(())
    }

    fn key(&mut self) -> Scan<()> {
        if self.flow_level == 0 {
            if !self.simple_key_allowed {
                return Err(Error("mapping keys are not allowed in this context"));
            }
            self.roll(self.column(), None, Token::BlockMappingStart)?;
        }
        self.remove_simple_key()?;
        self.indicator(Token::Key, self.flow_level == 0);
        Ok(())
    }

    fn value(&mut self) -> Scan<()> {
        let last = self.simple_keys.len() - 1;
        if self.is_valid(last)? {
            let key = self.simple_keys[last];
            self.insert(key.token, Token::Key);
            let column = key.mark.column as isize;
            self.roll(column, Some(key.token), Token::BlockMappingStart)?;
            self.simple_keys[last].possible = false;
            self.by_token.remove(&key.token);
            self.indicator(Token::Value, false);
            return Ok(());
        }
        if self.flow_level == 0 {
            if !self.simple_key_allowed {
                return Err(Error("mapping values are not allowed in this context"));
            }
            self.roll(self.column(), None, Token::BlockMappingStart)?;
        }
        self.indicator(Token::Value, self.flow_level == 0);
        Ok(())
    }
}
