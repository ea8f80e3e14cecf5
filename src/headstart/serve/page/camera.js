// The camera: why it cannot be used, a stream into a video element, and frames as JPEG files.

/** Why this page cannot use a camera, as lines of text; empty where it can. */
export function whyNoCamera() {
  if (!window.isSecureContext) {
    const port = location.port || "80";
    return [
      `Browsers let a page use the camera on https addresses and on this machine alone; ${location.host} is neither.`,
      `From another device: run "ssh -L ${port}:localhost:${port} ${location.hostname}" there and open ` +
        `http://localhost:${port}, or put the server behind https. Photographs can be chosen as files either way.`,
    ];
  }
  return navigator.mediaDevices?.getUserMedia ? [] : ["This browser gives pages no camera. Choose files instead."];
}

/** What an error of the camera means. */
function explain(error) {
  const reasons = {
    NotAllowedError: "The browser was told not to. Allow it by the camera symbol beside the address, then try again.",
    NotFoundError: "No camera was found. Is one connected?",
    NotReadableError: "Another program is using it. Close that and try again.",
  };
  return `The camera cannot be used. ${reasons[error.name] ?? error.message}`;
}

/** A camera that shows itself in `video`. */
export class Camera {
  constructor(video) {
    this.video = video;
    this.stream = null;
    this.canvas = document.createElement("canvas");
  }

  /** Start; raises Error with what to do. */
  async start(deviceId = null) {
    this.stop();
    const wanted = deviceId ? { deviceId: { exact: deviceId } } : { facingMode: "environment" };
    try {
      this.stream = await navigator.mediaDevices.getUserMedia({ video: wanted, audio: false });
    } catch (error) {
      throw new Error(explain(error), { cause: error });
    }
    this.video.srcObject = this.stream;
    await this.video.play();
  }

  /** Change to the next camera of this device. */
  async next() {
    const cameras = await this.cameras();
    const current = this.stream?.getVideoTracks()[0]?.getSettings().deviceId;
    const place = cameras.findIndex((camera) => camera.deviceId === current);
    await this.start(cameras[(place + 1) % cameras.length]?.deviceId);
  }

  async cameras() {
    return (await navigator.mediaDevices.enumerateDevices()).filter((device) => device.kind === "videoinput");
  }

  stop() {
    for (const track of this.stream?.getTracks() ?? []) track.stop();
    this.stream = null;
    this.video.srcObject = null;
  }

  get isOn() {
    return this.stream !== null;
  }

  /** The current frame as a JPEG file whose longer side is at most `longest` pixels; null before the first frame. */
  async frame(longest = 640) {
    const { videoWidth, videoHeight } = this.video;
    if (!videoWidth) return null;
    const scale = Math.min(1, longest / Math.max(videoWidth, videoHeight));
    this.canvas.width = Math.round(videoWidth * scale);
    this.canvas.height = Math.round(videoHeight * scale);
    this.canvas.getContext("2d").drawImage(this.video, 0, 0, this.canvas.width, this.canvas.height);
    return new Promise((resolve) => this.canvas.toBlob(resolve, "image/jpeg", 0.92));
  }
}
