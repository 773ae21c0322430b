//! The socket of a connection, watched: it tells the clock what is read and written.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;

use super::clock::Clock;

/// A clock shared by the socket, the requests on it and the task that looks at it.
#[derive(Debug, Clone)]
pub struct SharedClock(Arc<Mutex<Clock>>);

impl SharedClock {
    pub fn new(clock: Clock) -> Self {
        Self(Arc::new(Mutex::new(clock)))
    }

    /// A clock is whole after every call, so a poisoned one is as good as any.
    pub fn lock(&self) -> MutexGuard<'_, Clock> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// After our side is closed, so much may still come in before the connection is reset.
const LINGER_BYTES: usize = 4 * 1024 * 1024;
const LINGER: Duration = Duration::from_millis(500);

pub struct WatchedStream {
    inner: TcpStream,
    clock: SharedClock,
    linger: Option<Linger>,
}

/// A client that still sends would see a reset instead of the answer that refused it. So what it sends is thrown away
/// for a moment.
struct Linger {
    left_bytes: usize,
    timer: Pin<Box<Sleep>>,
    /// Nothing is awaited from a client that was not sending when we closed.
    was_sending: bool,
}

impl WatchedStream {
    pub fn new(inner: TcpStream, clock: SharedClock) -> Self {
        Self { inner, clock, linger: None }
    }

    fn note_write(&self, polled: &Poll<io::Result<usize>>) {
        match polled {
            Poll::Pending => self.clock.lock().write_blocked(Instant::now()),
            Poll::Ready(_) => self.clock.lock().written(),
        }
    }
}

impl AsyncRead for WatchedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(context, buffer);
        if let Some(read @ [_, ..]) = buffer.filled().get(before..) {
            self.clock.lock().bytes_read(read, Instant::now());
        }
        polled
    }
}

impl AsyncWrite for WatchedStream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write(context, bytes);
        self.note_write(&polled);
        polled
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write_vectored(context, slices);
        self.note_write(&polled);
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.linger.is_none() {
            match Pin::new(&mut this.inner).poll_shutdown(context) {
                Poll::Ready(Ok(())) => {}
                other => return other,
            }
        }
        let linger = this.linger.get_or_insert_with(|| Linger {
            left_bytes: LINGER_BYTES,
            timer: Box::pin(tokio::time::sleep(LINGER)),
            was_sending: false,
        });
        let mut sink = [0; 16 * 1024];
        while linger.left_bytes > 0 {
            let mut buffer = ReadBuf::new(&mut sink);
            match Pin::new(&mut this.inner).poll_read(context, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                    linger.was_sending = true;
                    linger.left_bytes = linger.left_bytes.saturating_sub(buffer.filled().len());
                }
                Poll::Ready(_) => return Poll::Ready(Ok(())),
                Poll::Pending if !linger.was_sending => return Poll::Ready(Ok(())),
                Poll::Pending => return linger.timer.as_mut().poll(context).map(Ok),
            }
        }
        Poll::Ready(Ok(()))
    }
}
