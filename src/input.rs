//! Files of lines: plain, or compressed with gzip or zstd, which their first bytes say.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::encoding::Decoder;

/// The size of a read of compressed data.
const BUFFER_BYTES: usize = 64 * 1024;

/// How many bytes of an input have been read, before they were decoded. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct BytesRead(Arc<AtomicU64>);

impl BytesRead {
    pub fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Reads what is there; 0 at the end. A signal doesn't interrupt it.
pub fn read_some(input: &mut impl Read, block: &mut [u8]) -> io::Result<usize> {
    loop {
        match input.read(block) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            read => return read,
        }
    }
}

/// Decodes an input.
pub fn decode<R: Read>(input: R, position: BytesRead) -> io::Result<impl Read + use<R>> {
    let counted = Counted { input, position };
    Decoder::of_file(BufReader::with_capacity(BUFFER_BYTES, counted))
}

struct Counted<R> {
    input: R,
    position: BytesRead,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.input.read(buffer)?;
        self.position.0.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

/// A file that can be read more than once.
#[derive(Debug)]
pub struct InputFile {
    file: File,
    /// Where it starts: what comes before was not meant.
    start: u64,
    bytes: u64,
}

impl InputFile {
    /// Opens a file, or standard input for `-`. The error is a sentence for the user.
    pub fn open(path: &Path) -> Result<Self, String> {
        let unreadable = |error: io::Error| format!("{}: {error}", path.display());
        let is_stdin = path == Path::new("-");
        let mut file = if is_stdin {
            File::from(io::stdin().as_fd().try_clone_to_owned().map_err(unreadable)?)
        } else {
            File::open(path).map_err(unreadable)?
        };
        let metadata = file.metadata().map_err(unreadable)?;
        if metadata.is_dir() {
            return Err(format!("{} is a directory; give a file", path.display()));
        }
        if !metadata.is_file() {
            let what = if is_stdin { "standard input" } else { "this file" };
            return Err(format!(
                "{}: the messages are read twice, and {what} is not a regular file, which could \
                 be; write them to a file first, and give its name, or redirect it (< FILE)",
                path.display()
            ));
        }
        let start = file.stream_position().map_err(unreadable)?;
        Ok(Self { file, start, bytes: metadata.len().saturating_sub(start) })
    }

    /// How many bytes it has.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Reads it from its start, and ends where it ended when it was opened.
    pub fn read(&self, position: BytesRead) -> io::Result<impl Read + use<>> {
        let mut file = self.file.try_clone()?;
        file.seek(SeekFrom::Start(self.start))?;
        decode(file.take(self.bytes), position)
    }
}
