//! create, start, state, kill, delete, run and list.

use creel_integration::Container;
use serde_json::json;

#[test]
fn container_goes_from_created_to_running_to_stopped() {
    let container = Container::idle();
    container.create();
    assert_eq!(container.status(), "created");
    let init = container.init();
    container.start();
    assert_eq!(container.status(), "running");
    container.kill("KILL");
    assert_eq!(init.exited(), Some(128 + 9));
    assert_eq!(container.status(), "stopped");
    assert_eq!(container.state()["pid"], json!(0));
    container.delete();
}
