//! A client's connection, below HTTP: one request at a time, with timeouts in both directions.
//!
//! actix-http limits the time of a connection's first head only, so this module limits the time of
//! all heads; [`body`](crate::http::extract::body) limits the time of bodies. A client that reads
//! its response too slowly is disconnected, because unread data takes memory. Pipelined requests
//! wait until the requests before them are answered.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, SystemTime};

use actix_web::body::{BodySize, MessageBody};
use actix_web::dev::{Extensions, ServiceRequest};
use actix_web::http::StatusCode;
use actix_web::http::header::HttpDate;
use actix_web::rt::net::TcpStream;
use bytes::{Bytes, BytesMut};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::http::middleware::framing::Framing;
use crate::http::middleware::request_id::RequestIds;
use crate::http::problem::Problem;

/// How long a client may take to send a request's head, in seconds, from its first byte or from the
/// start of the connection.
const HEAD_SECONDS: u32 = 10;
/// How long a connection may be idle between requests, in seconds. actix-http enforces this, unless
/// the next head started before the last response ended. Then this module does, after the sum of
/// both timeouts.
const KEEP_ALIVE_SECONDS: u32 = 75;
pub(in crate::http) const KEEP_ALIVE: Duration = Duration::from_secs(KEEP_ALIVE_SECONDS as u64);
/// How long the kernel may wait for a client to acknowledge data.
const UNREAD_TIMEOUT: Duration = Duration::from_secs(30);
/// The kernel's buffer for a response. Linux reserves twice as much.
const SEND_BUFFER_BYTES: usize = 512 * 1024;
/// The rate at which a client must read at least while there is data for it, in bytes per second.
const MIN_READ_RATE: i64 = 32 * 1024;
/// How many seconds a client may lag behind that rate. It catches up by reading faster.
const MAX_LAG_SECONDS: i64 = 20;
/// How much of later requests the connection reads while one is answered: enough to notice its end.
const MAX_READ_AHEAD_BYTES: usize = 16 * 1024;
/// How often a worker checks for timeouts.
const TICK: Duration = Duration::from_secs(1);

/// The connections of a worker, and their common clock, which replaces a timer per connection: that
/// would have to be reset for each request.
#[derive(Debug)]
pub(in crate::http) struct ConnectionTimers {
    ids: Arc<RequestIds>,
    /// Seconds that the clock has counted.
    second: Cell<u32>,
    is_clock_running: Cell<bool>,
    open: RefCell<Vec<Weak<ConnectionState>>>,
}

impl ConnectionTimers {
    pub(in crate::http) fn new(ids: Arc<RequestIds>) -> Self {
        Self {
            ids,
            second: Cell::new(0),
            is_clock_running: Cell::new(false),
            open: RefCell::default(),
        }
    }

    /// Wraps a new connection, and starts its timeouts.
    pub(in crate::http) fn accept(
        self: &Rc<Self>,
        stream: TcpStream,
    ) -> (Connection, Option<SocketAddr>) {
        // Only the kernel notices that a client acknowledges nothing at all.
        if let Err(error) = SockRef::from(&stream).set_tcp_user_timeout(Some(UNREAD_TIMEOUT)) {
            tracing::debug!(%error, "can't set TCP_USER_TIMEOUT on a connection");
        }
        // The kernel reports a slow reader's progress when a third of its buffer is free. A third
        // of the default buffer is more than a reader may lag.
        if let Err(error) = SockRef::from(&stream).set_send_buffer_size(SEND_BUFFER_BYTES) {
            tracing::debug!(%error, "can't set the send buffer of a connection");
        }
        // Otherwise the rest of a response that is written in parts waits until the client has
        // confirmed the part before, which takes up to 40 ms (Nagle's algorithm, RFC 896).
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "can't set TCP_NODELAY on a connection");
        }
        let peer = stream.peer_addr().ok();
        let state = Rc::new(ConnectionState {
            connections: Rc::clone(self),
            in_progress: Cell::new(0),
            head_started: Cell::new(true),
            deadline: Cell::new(Some(self.after(HEAD_SECONDS))),
            phase: Cell::new(Phase::Reading),
            has_more: Cell::new(false),
            write_blocked: Cell::new(false),
            read_credit: Cell::new(MAX_LAG_SECONDS * MIN_READ_RATE),
            task: RefCell::new(None),
        });
        self.open.borrow_mut().push(Rc::downgrade(&state));
        if !self.is_clock_running.replace(true) {
            actix_web::rt::spawn(Rc::clone(self).run_clock());
        }
        let connection = Connection {
            stream,
            state,
            framing: Framing::default(),
            read_ahead: BytesMut::new(),
            is_eof: false,
        };
        (connection, peer)
    }

    /// The clock's second once at least `seconds` have passed.
    fn after(&self, seconds: u32) -> u32 {
        self.second.get().saturating_add(seconds).saturating_add(1)
    }

    /// Counts seconds, and wakes connections that have timed out, until all connections are closed.
    async fn run_clock(self: Rc<Self>) {
        while !self.open.borrow().is_empty() {
            tokio::time::sleep(TICK).await;
            self.second.set(self.second.get().saturating_add(1));
            self.open.borrow_mut().retain(|state| match state.upgrade() {
                Some(state) => {
                    state.tick();
                    true
                }
                None => false,
            });
        }
        self.is_clock_running.set(false);
    }
}

/// The state of a connection.
struct ConnectionState {
    connections: Rc<ConnectionTimers>,
    /// The number of its requests that are being answered.
    in_progress: Cell<u32>,
    /// Whether part of the next head has arrived.
    head_started: Cell<bool>,
    /// The second by which the next head must be complete, if one is expected.
    deadline: Cell<Option<u32>>,
    phase: Cell<Phase>,
    /// Whether the next request's first bytes, or the end of the connection, have been read.
    has_more: Cell<bool>,
    /// Whether the last write found the kernel's buffer full.
    write_blocked: Cell<bool>,
    /// The bytes by which the client may still fall behind the minimum rate.
    read_credit: Cell<i64>,
    /// Wakes the task of the connection, which waits for the client.
    task: RefCell<Option<Waker>>,
}

/// The phase of the current request. Requests and responses alternate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The request is being read.
    Reading,
    /// The request was read to its end. The next is not read until this one is answered.
    Answering,
    /// The request was answered before it was read to its end.
    AnsweredEarly,
}

impl ConnectionState {
    fn head_received(&self) {
        if self.in_progress.get() == 0 && !self.head_started.replace(true) {
            self.deadline.set(Some(self.connections.after(HEAD_SECONDS)));
        }
    }

    fn head_timed_out(&self) -> bool {
        self.deadline.get().is_some_and(|deadline| self.connections.second.get() >= deadline)
    }

    /// Called every second.
    fn tick(&self) {
        if self.write_blocked.get() {
            self.read_credit.set(self.read_credit.get() - MIN_READ_RATE);
        }
        if self.head_timed_out() || self.reads_too_slowly() {
            self.wake();
        }
    }

    fn reads_too_slowly(&self) -> bool {
        self.read_credit.get() <= 0
    }

    /// Called when the kernel has accepted bytes for the client; none if its buffer is full.
    fn bytes_sent(&self, bytes: usize) {
        self.write_blocked.set(bytes == 0);
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        self.read_credit
            .set(self.read_credit.get().saturating_add(bytes).min(MAX_LAG_SECONDS * MIN_READ_RATE));
    }

    fn register_waker(&self, context: &Context<'_>) {
        let mut task = self.task.borrow_mut();
        if !task.as_ref().is_some_and(|task| task.will_wake(context.waker())) {
            *task = Some(context.waker().clone());
        }
    }

    fn wake(&self) {
        if let Some(task) = self.task.take() {
            task.wake();
        }
    }

    /// Called when a request has been read to its end.
    fn request_read(&self) {
        self.phase.set(match self.phase.get() {
            Phase::AnsweredEarly => Phase::Reading,
            Phase::Reading | Phase::Answering => Phase::Answering,
        });
    }

    /// Called when a request has been answered or abandoned.
    fn request_answered(&self) {
        if self.phase.get() == Phase::Answering {
            self.phase.set(Phase::Reading);
            // Data that has not been read yet wakes the task by itself.
            if self.has_more.get() {
                self.wake();
            }
        } else {
            self.phase.set(Phase::AnsweredEarly);
        }
    }
}

/// A request that is being answered. Its connection expects no head until this is dropped.
pub(in crate::http) struct RequestInProgress(Rc<ConnectionState>);

impl RequestInProgress {
    /// Registers a request with its connection. `None` if it did not come over a [`Connection`].
    pub(in crate::http) fn begin(request: &ServiceRequest) -> Option<Self> {
        let state = Rc::clone(request.conn_data::<Rc<ConnectionState>>()?);
        state.in_progress.set(state.in_progress.get() + 1);
        state.deadline.set(None);
        Some(Self(state))
    }

    /// Wraps the response body. The request counts as answered when the body is dropped.
    pub(in crate::http) fn until_end<B>(in_progress: Option<Self>, body: B) -> TrackedBody<B> {
        TrackedBody { body, _in_progress: in_progress }
    }
}

impl Drop for RequestInProgress {
    fn drop(&mut self) {
        let Self(state) = self;
        state.in_progress.set(state.in_progress.get() - 1);
        state.request_answered();
        if state.in_progress.get() == 0 {
            state.head_started.set(false);
            state.deadline.set(Some(state.connections.after(KEEP_ALIVE_SECONDS + HEAD_SECONDS)));
        }
    }
}

/// A response body that ends its request when it is dropped.
pub(in crate::http) struct TrackedBody<B> {
    body: B,
    _in_progress: Option<RequestInProgress>,
}

impl<B: MessageBody + Unpin> MessageBody for TrackedBody<B> {
    type Error = B::Error;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, B::Error>>> {
        Pin::new(&mut self.body).poll_next(context)
    }
}

/// A connection that ends if a head doesn't arrive in time, or its client reads a response too
/// slowly.
pub(in crate::http) struct Connection {
    stream: TcpStream,
    state: Rc<ConnectionState>,
    framing: Framing,
    /// The bytes read beyond the current request.
    read_ahead: BytesMut,
    /// Whether the client has ended its side of the connection.
    is_eof: bool,
}

impl Connection {
    /// Reads bytes of the current request.
    fn poll_request(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // A client that doesn't read its responses gets no further request read either.
        let is_backlogged = self.state.write_blocked.get() && !self.framing.is_within_request();
        if self.state.phase.get() == Phase::Answering || is_backlogged {
            return self.poll_ahead(context);
        }
        let before = buffer.filled().len();
        if self.read_ahead.is_empty() {
            if self.is_eof {
                return Poll::Ready(Ok(()));
            }
            ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        } else {
            let length = self.read_ahead.len().min(buffer.remaining());
            buffer.put_slice(&self.read_ahead.split_to(length));
        }
        let (_, read) = buffer.filled().split_at(before);
        let (taken, ends) = self.framing.take(read);
        if taken < read.len() {
            // The rest comes before the bytes that were read ahead earlier.
            let (_, rest) = read.split_at(taken);
            let rest = BytesMut::from(rest);
            let later = std::mem::replace(&mut self.read_ahead, rest);
            self.read_ahead.unsplit(later);
            buffer.set_filled(before + taken);
        }
        self.state.has_more.set(!self.read_ahead.is_empty() || self.is_eof);
        if ends {
            self.state.request_read();
        }
        Poll::Ready(Ok(()))
    }

    /// Reads ahead while a request is answered, to notice a disconnect. Ready when the connection
    /// has ended and no bytes are left.
    fn poll_ahead(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut bytes = [0; 1_024];
        while self.read_ahead.len() < MAX_READ_AHEAD_BYTES && !self.is_eof {
            let mut buffer = ReadBuf::new(&mut bytes);
            ready!(Pin::new(&mut self.stream).poll_read(context, &mut buffer))?;
            self.is_eof = buffer.filled().is_empty();
            self.read_ahead.extend_from_slice(buffer.filled());
            self.state.has_more.set(true);
        }
        if self.is_eof && self.read_ahead.is_empty() { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    /// Makes the state available to the connection's requests.
    pub(in crate::http) fn share_state(&self, extensions: &mut Extensions) {
        extensions.insert(Rc::clone(&self.state));
    }
}

/// The response to a head that timed out, as bytes. The connection ends after it.
fn request_timeout(ids: &RequestIds) -> String {
    let problem = Problem::new(
        StatusCode::REQUEST_TIMEOUT,
        format!("The request's head did not arrive within {HEAD_SECONDS} seconds."),
    );
    let problem = problem.to_json();
    let (date, id, length) = (HttpDate::from(SystemTime::now()), ids.next(), problem.len());
    format!(
        "HTTP/1.1 408 Request Timeout\r\nconnection: close\r\n\
         content-type: application/problem+json\r\ncontent-length: {length}\r\n\
         x-request-id: {id}\r\ndate: {date}\r\n\r\n{problem}"
    )
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let connection = self.get_mut();
        let state = Rc::clone(&connection.state);
        if state.head_timed_out() {
            // No response is in progress, so writing one here can't mix with another. The write
            // fails if the client no longer reads; then no response can reach it.
            let response = request_timeout(&state.connections.ids);
            let _ = connection.stream.try_write(response.as_bytes());
            state.deadline.set(None);
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        let polled = connection.poll_request(context, buffer);
        if buffer.filled().len() > before && connection.framing.is_within_request() {
            state.head_received();
        }
        if polled.is_pending() {
            state.register_waker(context);
        }
        polled
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let Self { stream, state, .. } = self.get_mut();
        if state.reads_too_slowly() {
            tracing::debug!("disconnected a client that read its response too slowly");
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let polled = Pin::new(stream).poll_write(context, bytes);
        match &polled {
            Poll::Ready(Ok(written)) => state.bytes_sent(*written),
            Poll::Ready(Err(_)) => {}
            Poll::Pending => {
                state.bytes_sent(0);
                state.register_waker(context);
            }
        }
        polled
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}
