//! The tasks: one that looks, and one for each channel that tells.

use std::{sync::Arc, time::Duration};

use piecework_sink::notice::Notify;

use super::{Alerts, notice, rules};

/// Of a channel that does not listen.
const PAUSE_MAX: Duration = Duration::from_secs(300);

pub(super) async fn look(alerts: Arc<Alerts>) {
    loop {
        let looked = async { alerts.compare(rules::conditions(&alerts).await?).await };
        if let Err(refusal) = looked.await {
            tracing::warn!(%refusal, "looking for what operators are told failed; it is tried again");
        }
        tokio::select! {
            () = alerts.ground.shutdown.cancelled() => return,
            () = alerts.ground.clock.sleep(alerts.ground.tuning.alerts_every) => {}
        }
    }
}

pub(super) async fn tell(alerts: Arc<Alerts>, channel: Arc<dyn Notify>) {
    let mut changed = alerts.changed.subscribe();
    let mut failures = 0;
    loop {
        let Some((key, alert)) = alerts.next(channel.name()) else {
            tokio::select! {
                () = alerts.ground.shutdown.cancelled() => return,
                _ = changed.changed() => continue,
            }
        };
        let notified = async {
            let notice = notice(&alert.message(&alerts.ground, &key)).map_err(|refusal| refusal.to_string())?;
            channel.notify(&notice).await.map_err(|unheard| unheard.to_string())?;
            let heard = alerts.heard(channel.name(), &key, alert.status());
            heard.await.map_err(|refusal| refusal.to_string())
        };
        let notified = tokio::select! {
            () = alerts.ground.shutdown.cancelled() => return,
            notified = notified => notified,
        };
        match notified {
            Ok(()) => failures = 0,
            Err(why) => {
                alerts.ground.telemetry.alerts_unheard.inc();
                tracing::warn!(
                    channel = channel.name(),
                    why,
                    "an alert was not taken; it is sent again"
                );
                let pause = pause(alerts.ground.tuning.alerts_pause, failures);
                failures += 1;
                tokio::select! {
                    () = alerts.ground.shutdown.cancelled() => return,
                    () = alerts.ground.clock.sleep(pause) => {}
                }
            }
        }
    }
}

/// `first` is after the first failure; doubled with each further one.
fn pause(first: Duration, failures: u32) -> Duration {
    first.saturating_mul(1 << failures.min(16)).min(PAUSE_MAX)
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn pauses_grow_to_five_minutes() {
        let seconds: Vec<u64> = [0, 1, 2, 8, 9, 40]
            .map(|n| pause(Duration::from_secs(1), n).as_secs())
            .into();
        assert_eq!(seconds, [1, 2, 4, 256, 300, 300]);
    }
}
