//! The `STATUS` column of `docker ps`.

use jiff::Timestamp;
use portolan_engine::model::{ContainerState, HealthStatus, Status};

/// `Up 5 minutes (healthy)`, `Exited (0) 2 hours ago`, ...
pub(super) fn status_text(state: &ContainerState, now: Timestamp) -> String {
    let since = |time: Option<Timestamp>| time.map(|time| human_duration(now.as_second() - time.as_second()));
    let up = || since(state.started_at).unwrap_or_default();
    match state.status {
        Status::Paused => format!("Up {} (Paused)", up()),
        Status::Restarting => {
            format!("Restarting ({}) {} ago", state.exit_code, since(state.finished_at).unwrap_or_default())
        }
        Status::Running => match state.health.as_ref().map(|health| health.status) {
            Some(HealthStatus::Starting) => format!("Up {} (health: starting)", up()),
            Some(health) => format!("Up {} ({})", up(), health.as_str()),
            None => format!("Up {}", up()),
        },
        Status::Removing => "Removal In Progress".to_owned(),
        Status::Dead => "Dead".to_owned(),
        Status::Created => "Created".to_owned(),
        Status::Exited => match since(state.finished_at) {
            Some(ago) => format!("Exited ({}) {ago} ago", state.exit_code),
            None => String::new(),
        },
    }
}

/// Seconds as people say them, in the words of Docker's units package.
fn human_duration(seconds: i64) -> String {
    let minutes = seconds / 60;
    let hours = (seconds + 1800) / 3600;
    match (seconds, minutes, hours) {
        (..=0, ..) => "Less than a second".to_owned(),
        (1, ..) => "1 second".to_owned(),
        (2..60, ..) => format!("{seconds} seconds"),
        (_, 1, _) => "About a minute".to_owned(),
        (_, 2..60, _) => format!("{minutes} minutes"),
        (.., 1) => "About an hour".to_owned(),
        (.., 2..48) => format!("{hours} hours"),
        (.., 48..336) => format!("{} days", hours / 24),
        (.., 336..1440) => format!("{} weeks", hours / 24 / 7),
        (.., 1440..17520) => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", hours / 24 / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use portolan_engine::model::Health;

    #[test]
    fn durations_are_said_as_docker_says_them() {
        let said = [
            0, 1, 59, 60, 119, 120, 3599, 3600, 5399, 5400, 172_799, 259_200, 2_000_000, 10_000_000,
            70_000_000,
        ]
        .map(human_duration);
        assert_eq!(
            said,
            [
                "Less than a second",
                "1 second",
                "59 seconds",
                "About a minute",
                "About a minute",
                "2 minutes",
                "59 minutes",
                "About an hour",
                "About an hour",
                "2 hours",
                "2 days",
                "3 days",
                "3 weeks",
                "3 months",
                "2 years",
            ]
        );
    }

    #[test]
    fn states_are_said_as_docker_says_them() {
        let now = Timestamp::from_second(1_000_000).unwrap();
        let ago = |seconds: i64| Some(Timestamp::from_second(1_000_000 - seconds).unwrap());
        let mut state = ContainerState {
            status: Status::Running,
            started_at: ago(300),
            finished_at: ago(7200),
            exit_code: 137,
            ..ContainerState::default()
        };
        assert_eq!(status_text(&state, now), "Up 5 minutes");
        state.health = Some(Health::default());
        assert_eq!(status_text(&state, now), "Up 5 minutes (health: starting)");
        let mut said = |status| {
            state.status = status;
            status_text(&state, now)
        };
        assert_eq!(said(Status::Paused), "Up 5 minutes (Paused)");
        assert_eq!(said(Status::Exited), "Exited (137) 2 hours ago");
        assert_eq!(said(Status::Restarting), "Restarting (137) 2 hours ago");
        assert_eq!(said(Status::Created), "Created");
    }
}
