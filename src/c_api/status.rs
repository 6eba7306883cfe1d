//! Status codes, and the text that says more.

use std::ffi::c_char;
use std::fmt::{self, Write};

use crate::error::Error;

/// What became of a call. Numbers never change their meaning.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Done.
    Ok = 0,
    /// A pointer that must not be is null.
    NullPointer = 1,
    /// A handle that was freed, or is none.
    BadHandle = 2,
    /// An index, a size or a number that makes no sense.
    BadArgument = 3,
    /// A file could not be read.
    File = 4,
    /// A model is damaged, or of another version.
    Malformed = 5,
    /// A model uses what this library does not implement, or was built without.
    Unsupported = 6,
    /// A model exceeds a limit.
    TooLarge = 7,
    /// This CPU cannot run the instruction set that was asked for.
    IsaUnavailable = 8,
    /// The arena is too small or not aligned; the text says what is needed.
    BadArena = 9,
    /// An input or output has no memory, or memory of another size or alignment.
    BadBuffer = 10,
    /// Another thread is in a call with this session.
    Busy = 11,
    /// The run was cancelled: its outputs hold anything.
    Cancelled = 12,
    /// No input or output has that name.
    NotFound = 13,
    /// A fault of the library. The session can be freed, or run again.
    Internal = 14,
}

/// What a status means, in a few words; "unknown status" for a number that is none. Stays for ever.
#[unsafe(no_mangle)]
pub extern "C" fn sinew_status_text(status: i32) -> *const c_char {
    let text = match status {
        0 => c"ok",
        1 => c"null pointer",
        2 => c"bad handle",
        3 => c"bad argument",
        4 => c"file cannot be read",
        5 => c"malformed model",
        6 => c"unsupported model",
        7 => c"model exceeds a limit",
        8 => c"instruction set not available",
        9 => c"bad arena",
        10 => c"bad buffer",
        11 => c"session is busy",
        12 => c"cancelled",
        13 => c"not found",
        14 => c"internal fault",
        _ => c"unknown status",
    };
    text.as_ptr()
}

/// Room for one line of text, cut where it is longer.
#[repr(C)]
pub struct Message {
    /// Ends with a zero; empty where all went well.
    pub text: [c_char; 256],
}

impl Message {
    pub(super) const EMPTY: Message = Message { text: [0; 256] };

    pub(super) fn clear(&mut self) {
        self.text[0] = 0;
    }

    /// Writes without allocating.
    pub(super) fn set(&mut self, text: impl fmt::Display) {
        self.text = [0; 256];
        let mut writer = Writer { message: self, at: 0 };
        // A text that does not fit is cut: an error of the writer.
        let _ = write!(writer, "{text}");
    }
}

struct Writer<'m> {
    message: &'m mut Message,
    at: usize,
}

impl Write for Writer<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = self.message.text.len() - 1 - self.at;
        let fits = text.floor_char_boundary(room);
        for (to, &byte) in self.message.text[self.at..].iter_mut().zip(&text.as_bytes()[..fits]) {
            *to = if byte == 0 { b' ' as c_char } else { byte as c_char };
        }
        self.at += fits;
        if fits < text.len() { Err(fmt::Error) } else { Ok(()) }
    }
}

/// Why a call failed: the number and the text.
pub(super) struct Failure {
    pub(super) status: Status,
    pub(super) text: Text,
}

pub(super) enum Text {
    Fixed(&'static str),
    Error(Box<Error>),
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Text::Fixed(text) => f.write_str(text),
            Text::Error(error) => error.fmt(f),
        }
    }
}

impl Failure {
    pub(super) fn new(status: Status, text: &'static str) -> Self {
        Self { status, text: Text::Fixed(text) }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let status = match &error {
            Error::File { .. } => Status::File,
            Error::Malformed { .. } | Error::Node { .. } => Status::Malformed,
            Error::Unsupported(_) => Status::Unsupported,
            Error::Tensor { .. } => Status::BadBuffer,
            Error::TooLarge { .. } => Status::TooLarge,
            Error::IsaUnavailable { .. } => Status::IsaUnavailable,
            Error::ArenaTooSmall { .. } => Status::BadArena,
            Error::Cancelled => return Self::new(Status::Cancelled, "the run was cancelled"),
            Error::Option { option, .. } if option == "arena" => Status::BadArena,
            Error::Option { .. } => Status::BadArgument,
        };
        Self { status, text: Text::Error(Box::new(error)) }
    }
}
