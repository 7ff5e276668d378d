//! A start on a full disk: it is waited for room, as for a disk that is away, so that nobody has to start the outputter once more.

use crate::figures::Figures;
use logferry_durable::is_full;
use std::io;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How often it is tried.
const TRY_INTERVAL: Duration = Duration::from_secs(1);

/// Tries to `open` something until there is room for it, and says so meanwhile; `None` when the program stops before. All other errors are
/// given back.
pub(crate) async fn wait<T>(
    stop: &CancellationToken,
    figures: &Figures,
    open: impl AsyncFn() -> anyhow::Result<T>,
) -> anyhow::Result<Option<T>> {
    let mut is_said = false;
    loop {
        let error = match open().await {
            Err(error) if is_want_of_room(&error) => error,
            opened => {
                if is_said {
                    figures.set_problem(None);
                }
                return opened.map(Some);
            }
        };
        let problem = format!("starting: there is no room in node.var_dir, make some: {error:#}");
        if !std::mem::replace(&mut is_said, true) {
            tracing::error!("{problem}; it is tried again");
        }
        figures.set_problem(Some(problem));
        if stop.run_until_cancelled(tokio::time::sleep(TRY_INTERVAL)).await.is_none() {
            tracing::info!("stopped before there was room");
            return Ok(None);
        }
    }
}

fn is_want_of_room(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| cause.downcast_ref::<io::Error>().is_some_and(is_full))
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;
    use std::cell::Cell;

    async fn open(left: &Cell<u32>, kind: io::ErrorKind) -> anyhow::Result<&'static str> {
        match left.replace(left.get().saturating_sub(1)) {
            0 => Ok("opened"),
            _ => Err(io::Error::from(kind)).context("the spool"),
        }
    }

    #[tokio::test]
    async fn room_is_waited_for_and_nothing_else() {
        let (stop, figures) = (CancellationToken::new(), Figures::default());
        let tries = Cell::new(2);
        let opened = wait(&stop, &figures, async || {
            assert_eq!(figures.problems().is_empty(), tries.get() == 2, "{:?}", figures.problems());
            open(&tries, io::ErrorKind::StorageFull).await
        });
        assert_eq!(opened.await.unwrap(), Some("opened"));
        assert!(figures.problems().is_empty());
        tries.set(2);
        let denied = wait(&stop, &figures, async || open(&tries, io::ErrorKind::PermissionDenied).await);
        assert!(denied.await.is_err());
        assert_eq!(tries.get(), 1, "a wrong setting is told at once");
    }

    #[tokio::test]
    async fn a_stop_ends_the_wait() {
        let (stop, figures) = (CancellationToken::new(), Figures::default());
        stop.cancel();
        let tries = Cell::new(1_000);
        let opened = wait(&stop, &figures, async || open(&tries, io::ErrorKind::StorageFull).await);
        assert_eq!(opened.await.unwrap(), None);
    }
}
