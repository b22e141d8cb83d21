//! Programs that run in a container just before and just after its instant: the operator's own, or built-in ones that bring a
//! database's files up to date.
//!
//! A backup is right without them: what is on disk at one instant is what a database recovers from after a power failure. They
//! make that recovery short, and say to whoever looks at the files that all is in them.

use crate::container::Container;
use crate::error::{Error, Result};
use docker::Api;
use model::ErrorKind;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Labels of containers that name their hooks.
const PRE: &str = "everhold.pre";
const POST: &str = "everhold.post";

/// A program to run in a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hook {
    /// The container's ID.
    pub container: String,
    /// Its name, for people.
    pub name: String,
    /// What was asked for: a built-in's name, or a command for the container's shell.
    pub asked: String,
}

/// What to run before and after.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hooks {
    /// Before.
    pub pre: Vec<Hook>,
    /// After, whatever happened.
    pub post: Vec<Hook>,
}

impl Hooks {
    /// What labels say, or, for a single container, the command line.
    ///
    /// # Errors
    /// Commands for several containers at once, a container that can't run any.
    pub fn of(containers: &[Container], pre: Option<&str>, post: Option<&str>) -> Result<Self> {
        if containers.len() > 1 && (pre.is_some() || post.is_some()) {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                "one command can't be meant for several containers",
                format!("give each container that needs it the labels {PRE} and {POST}"),
            ));
        }
        let mut hooks = Self::default();
        for container in containers {
            let wanted = |told: Option<&str>, label: &str| {
                let asked =
                    told.or_else(|| container.label(label)).filter(|asked| !asked.trim().is_empty())?;
                Some(Hook {
                    container: container.id().to_owned(),
                    name: container.name().to_owned(),
                    asked: asked.trim().to_owned(),
                })
            };
            // In a container that does not run there is nothing to bring up to date.
            if !container.is_running() || container.is_paused() {
                if pre.is_some() || post.is_some() {
                    return Err(Error::new(
                        ErrorKind::InvalidInput,
                        format!("{} does not run, so no command can run in it", container.name()),
                        "leave --pre and --post out, or start it",
                    ));
                }
                continue;
            }
            hooks.pre.extend(wanted(pre, PRE));
            hooks.post.extend(wanted(post, POST));
        }
        Ok(hooks)
    }
}

/// The command of a hook.
fn command(asked: &str) -> Vec<String> {
    let script = match asked {
        "postgres" => POSTGRES,
        "mysql" => MYSQL,
        "redis" => REDIS,
        own => own,
    };
    ["sh", "-c", script].map(str::to_owned).to_vec()
}

/// All changes are in the data files, not only in the log.
const POSTGRES: &str = r#"exec psql -X -q -v ON_ERROR_STOP=1 -U "${PGUSER:-${POSTGRES_USER:-postgres}}" \
  -d "${PGDATABASE:-${POSTGRES_DB:-postgres}}" -c CHECKPOINT"#;
/// Tables that are not transactional are closed, and logs are on disk.
const MYSQL: &str = r#"client=$(command -v mariadb || command -v mysql) || { echo "no mariadb or mysql client" >&2; exit 127; }
export MYSQL_PWD="${MYSQL_ROOT_PASSWORD:-${MARIADB_ROOT_PASSWORD:-}}"
exec "$client" --user=root --execute='FLUSH TABLES; FLUSH ENGINE LOGS'"#;
/// The snapshot file is as new as the data.
const REDIS: &str = r#"export REDISCLI_AUTH="${REDISCLI_AUTH:-${REDIS_PASSWORD:-}}"
[ -n "$REDISCLI_AUTH" ] || unset REDISCLI_AUTH
said=$(redis-cli SAVE 2>&1); [ "$said" = OK ] || { echo "$said" >&2; exit 1; }"#;

/// Runs a hook to its end.
///
/// # Errors
/// It failed, took longer than `limit`, or the engine would not run it.
pub fn run(api: &Api, hook: &Hook, limit: Duration) -> Result<()> {
    let ended =
        api.execute(&hook.container, &command(&hook.asked), None, limit).map_err(|error| match error {
            docker::ApiError::Silent { after, .. } if after == limit => Error::new(
                ErrorKind::TimedOut,
                format!("`{}` in {} did not end within {} s", hook.asked, hook.name, limit.as_secs()),
                "see what keeps it: it goes on in the container",
            ),
            error => Error::from(error).while_doing(format!("`{}` in {}", hook.asked, hook.name)),
        })?;
    if ended.status == 0 {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Internal,
        format!(
            "`{}` in {} failed with exit status {}: {}",
            hook.asked, hook.name, ended.status, ended.output
        ),
        "see what it says; correct the command or leave it out",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn container(name: &str, running: bool, labels: serde_json::Value) -> Container {
        Container::from_document(json!({
            "Id": name, "Name": format!("/{name}"), "State": { "Running": running }, "Config": { "Labels": labels },
        }))
    }

    #[test]
    fn labels_name_hooks_and_the_command_line_wins() {
        let db = container("db", true, json!({ PRE: "postgres", POST: " " }));
        let hooks = Hooks::of(std::slice::from_ref(&db), None, None).unwrap();
        assert_eq!((hooks.pre[0].asked.as_str(), hooks.post.len()), ("postgres", 0));
        let hooks = Hooks::of(std::slice::from_ref(&db), Some("sync"), Some("true")).unwrap();
        assert_eq!((hooks.pre[0].asked.as_str(), hooks.post[0].asked.as_str()), ("sync", "true"));

        let web = container("web", true, json!({}));
        assert_eq!(Hooks::of(&[db.clone(), web.clone()], None, None).unwrap().pre.len(), 1);
        assert!(Hooks::of(&[db, web], Some("sync"), None).is_err());
    }

    #[test]
    fn nothing_runs_in_what_does_not_run() {
        let off = container("db", false, json!({ PRE: "postgres" }));
        assert_eq!(Hooks::of(std::slice::from_ref(&off), None, None).unwrap(), Hooks::default());
        assert!(Hooks::of(&[off], Some("sync"), None).is_err());
    }

    #[test]
    fn built_ins_are_programs_of_the_shell() {
        for name in ["postgres", "mysql", "redis"] {
            let command = command(name);
            let parsed = std::process::Command::new("sh").args(["-n", "-c", &command[2]]).status().unwrap();
            assert!(parsed.success() && command[2] != name, "{name}");
        }
        assert_eq!(command("echo x")[2], "echo x");
    }
}
