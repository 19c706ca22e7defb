//! Reads a file of messages line by line.

use std::io;
use std::ops::ControlFlow;

use bytes::Bytes;

use super::Progress;
use crate::domain::message::Message;
use crate::input::{BytesRead, InputFile, read_some};
use crate::wire::message::MAX_MESSAGE_BYTES;
use crate::wire::ndjson::{BadLine, Line, LineCutter};

/// The size of a read.
const BLOCK_BYTES: usize = 256 * 1024;

/// A line that is not blank.
pub(super) struct ScannedLine {
    /// Without its end; empty if it is too long.
    pub(super) text: Bytes,
    pub(super) message: Result<Message, BadLine>,
}

/// Passes on each line of a file, until it breaks.
pub(super) fn scan(
    file: &InputFile,
    progress: &dyn Progress,
    mut each: impl FnMut(ScannedLine) -> ControlFlow<()>,
) -> io::Result<()> {
    let position = BytesRead::default();
    let mut input = file.read(position.clone())?;
    let (mut cutter, mut flow) = (LineCutter::new(MAX_MESSAGE_BYTES), ControlFlow::Continue(()));
    let mut pass = |line: Line| {
        if flow.is_continue() {
            let text = line.text.clone().unwrap_or_default();
            flow = each(ScannedLine { text, message: line.parse() });
        }
        flow
    };
    let mut block = vec![0; BLOCK_BYTES];
    loop {
        let mut flow = ControlFlow::Continue(());
        // After a failure, the last line may be cut off, so it doesn't count.
        let read = read_some(&mut input, &mut block)?;
        if read == 0 {
            cutter.finish(&mut |line| flow = pass(line));
        } else {
            let part = Bytes::copy_from_slice(&block[..read]);
            cutter.feed(&part, &mut |line| flow = pass(line));
        }
        progress.position(position.bytes());
        if read == 0 || flow.is_break() {
            return Ok(());
        }
    }
}
