# The plan of the benchmark: what is run for each image and tool. The first row of a group is creel's.
def creel($more): "\($bin)/creel --root \($work)/state \($more)";
def pull($image): {
  name: "pull \($image)",
  rows: [
    { name: "creel pull", before: "rm -rf \($work)/creel",
      script: creel("pull -q --store \($work)/creel docker://\($host)/\($image):1") },
    { name: "containerd, ctr images pull", daemon: $daemon,
      before: "ctr -a \($work)/c.sock images rm --sync \($host)/\($image):1 || true",
      script: "ctr -a \($work)/c.sock images pull --plain-http \($host)/\($image):1" },
    { name: "podman pull", before: "rm -rf \($work)/podman",
      script: "podman --root \($work)/podman/root --runroot \($work)/podman/run --tmpdir \($work)/podman/tmp --storage-driver overlay --events-backend file pull -q --tls-verify=false \($host)/\($image):1" }
  ] };
def run($image): {
  name: "run \($image) for the first time",
  rows: [
    { name: "creel pull-and-run", before: "rm -rf \($work)/creel",
      script: creel("pull-and-run -q --store \($work)/creel docker://\($host)/\($image):1 /bin/true") },
    { name: "skopeo + umoci + runc", before: "rm -rf \($work)/umoci && mkdir \($work)/umoci",
      script: "cd \($work)/umoci; skopeo copy -q --insecure-policy --src-tls-verify=false docker://\($host)/\($image):1 oci:layout:1; umoci unpack --image layout:1 bundle; jq '.process.terminal = false | .process.args = [\"/bin/true\"]' bundle/config.json >c; mv c bundle/config.json; runc --root \($work)/runc run -b bundle creel-bench-images" }
  ] };
def again($image): {
  name: "run \($image) again",
  rows: [
    { name: "creel pull-and-run",
      before: creel("pull -q --store \($work)/kept docker://\($host)/\($image):1"),
      script: creel("pull-and-run -q --store \($work)/kept docker://\($host)/\($image):1 /bin/true") },
    { name: "creel run of the bundle",
      before: "test -d \($work)/bundle-\($image) || \(creel("unpack -q docker://\($host)/\($image):1 \($work)/bundle-\($image)"))",
      script: creel("run --bundle \($work)/bundle-\($image) creel-bench-again") }
  ] };
{ rounds: $rounds,
  groups: ([("small", "py", "l20") | run(.), pull(.)] + [again("small"), again("py")]) }
