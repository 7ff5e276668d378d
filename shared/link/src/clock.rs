//! The runtime's clock, which tests can stop, and one timer per connection.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;
use tokio::time::Sleep;

/// Now, for the state machines.
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// A timer that is moved only when it must fire earlier than set, or has fired: deadlines that are postponed again and again, as
/// those of time-outs are, cost nothing. So it may fire early.
pub(crate) struct Alarm {
    sleep: Pin<Box<Sleep>>,
    fired: bool,
}

impl Alarm {
    pub(crate) fn new() -> Alarm {
        Alarm { sleep: Box::pin(tokio::time::sleep_until(tokio::time::Instant::now())), fired: true }
    }

    /// Fires at `deadline` or earlier.
    pub(crate) fn by(&mut self, deadline: Instant) -> impl Future<Output = ()> + '_ {
        let deadline = tokio::time::Instant::from_std(deadline);
        if self.fired || deadline < self.sleep.deadline() {
            self.sleep.as_mut().reset(deadline);
            self.fired = false;
        }
        Ring(self)
    }
}

struct Ring<'a>(&'a mut Alarm);

impl Future for Ring<'_> {
    type Output = ();
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let done = self.0.sleep.as_mut().poll(context);
        self.0.fired |= done.is_ready();
        done
    }
}
