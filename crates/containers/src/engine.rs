//! What a relocation asks of a Docker Engine, one verb each, all of them safe to ask again.

use crate::container::Container;
use crate::error::{Error, Result};
use crate::settings::Creation;
use docker::{Api, encode};
use model::ErrorKind;
use serde_json::{Value, json};
use std::time::Duration;

fn path(container: &str, verb: &str) -> String {
    format!("/containers/{}/{verb}", encode(container))
}

pub(crate) fn inspect(api: &Api, which: &str) -> Result<Option<Container>> {
    Ok(Container::find(api, which)?)
}

/// The container, which must be there.
pub(crate) fn present(api: &Api, which: &str) -> Result<Container> {
    inspect(api, which)?.ok_or_else(|| {
        Error::new(
            ErrorKind::NotFound,
            format!("there is no container {which}"),
            "`docker ps -a` lists all of them",
        )
    })
}

pub(crate) fn pause(api: &Api, container: &str) -> Result<()> {
    Ok(api.act(&path(container, "pause"))?)
}

pub(crate) fn unpause(api: &Api, container: &str) -> Result<()> {
    match api.act(&path(container, "unpause")) {
        Err(_) if inspect(api, container)?.is_some_and(|container| !container.is_paused()) => Ok(()),
        other => Ok(other?),
    }
}

pub(crate) fn start(api: &Api, container: &str) -> Result<()> {
    Ok(api.act(&path(container, "start"))?)
}

pub(crate) fn stop(api: &Api, container: &str) -> Result<()> {
    Ok(api.act(&path(container, "stop"))?)
}

/// Ends a frozen container: none of its processes gets a chance to run again.
pub(crate) fn kill(api: &Api, container: &str) -> Result<()> {
    // The engine kills the main process alone, thaws all, and leaves it to the kernel to end the others after it: a database's
    // server could still commit something in between, which only the old files would have.
    if let Some(pid) = inspect(api, container)?.and_then(|container| container.pid()) {
        linux::procs::kill_with(pid)?;
    }
    let killed = api.act(&path(container, "kill"));
    for _ in 0..300 {
        match inspect(api, container)? {
            Some(found) if found.is_running() => std::thread::sleep(Duration::from_millis(10)),
            _ => return Ok(()),
        }
    }
    killed?;
    Err(Error::new(
        ErrorKind::TimedOut,
        format!("the container {container} was killed and does not end"),
        "see the engine's log",
    ))
}

pub(crate) fn rename(api: &Api, container: &str, name: &str) -> Result<()> {
    if inspect(api, container)?.is_some_and(|container| container.name() == name) {
        return Ok(());
    }
    Ok(api.act(&format!("{}?name={}", path(container, "rename"), encode(name)))?)
}

pub(crate) fn set_restart_policy(api: &Api, container: &str, policy: &Value) -> Result<()> {
    api.post(&path(container, "update"), &json!({ "RestartPolicy": policy }))?;
    Ok(())
}

/// Removes the container, and no volume.
pub(crate) fn remove(api: &Api, container: &str) -> Result<()> {
    Ok(api.delete(&format!("/containers/{}?force=true", encode(container)))?)
}

/// Makes a container that is not started; its ID.
pub(crate) fn create(api: &Api, name: &str, creation: &Creation) -> Result<String> {
    let made = api.post(&format!("/containers/create?name={}", encode(name)), &creation.body)?;
    let id = made["Id"].as_str().unwrap_or_default().to_owned();
    for (network, endpoint) in &creation.connect {
        let body = json!({ "Container": id, "EndpointConfig": endpoint });
        if let Err(error) = api.post(&format!("/networks/{}/connect", encode(network)), &body) {
            // Whoever asked for it does not get to know its ID, and could not remove it.
            remove(api, &id)?;
            return Err(error.into());
        }
    }
    Ok(id)
}

/// Makes the engine know a volume that its driver has.
pub(crate) fn introduce(api: &Api, name: &str, driver: &str) -> Result<()> {
    api.post("/volumes/create", &json!({ "Name": name, "Driver": driver }))?;
    Ok(())
}

/// What the engine says of a volume of this driver. Asked for one by its name alone, an engine that does not know it asks all
/// plugins that it has ever heard of, and waits for half a minute for each that is gone.
pub(crate) fn volume(api: &Api, driver: &str, name: &str) -> Result<Option<Value>> {
    let listed: Value = api.get(&format!("/volumes?{}", docker::filters(&[("driver", driver)])))?;
    let listed = listed["Volumes"].as_array().into_iter().flatten();
    Ok(listed.into_iter().find(|volume| volume["Name"] == name).cloned())
}

/// Makes the engine forget a volume of ours, which goes to the trash by that. One of another driver, which has the same name by
/// now, is left alone.
pub(crate) fn forget(api: &Api, name: &str, driver: &str) -> Result<()> {
    match volume(api, driver, name)? {
        Some(_) => Ok(api.delete(&format!("/volumes/{}", encode(name)))?),
        None => Ok(()),
    }
}

/// The end of what a container printed.
pub(crate) fn last_words(api: &Api, container: &str) -> String {
    use std::io::Read;
    let path = path(container, "logs?stdout=true&stderr=true&tail=5");
    let mut raw = Vec::new();
    if let Ok(stream) = api.download(&path) {
        // What could be read is better than nothing.
        stream.take(16 << 10).read_to_end(&mut raw).unwrap_or_default();
    }
    let text: String = String::from_utf8_lossy(&raw)
        .chars()
        .filter(|character| !character.is_control() || *character == '\n')
        .collect();
    text.trim().to_owned()
}
