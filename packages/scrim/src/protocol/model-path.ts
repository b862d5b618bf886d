/**
 * Paths of the v2 HTTP API.
 *
 * Open Inference Protocol, "HTTP/REST", and Triton's extensions. Names are percent-encoded; what a proxy does to them
 * in between is the caller's.
 */

/** Path of a model or of something it can do, such as `/v2/models/m/versions/1/infer`. */
export function modelPath(name: string, version = '', action = ''): string {
  const model = `/v2/models/${encodeURIComponent(name)}`;
  const versioned = version === '' ? model : `${model}/versions/${encodeURIComponent(version)}`;
  return action === '' ? versioned : `${versioned}/${action}`;
}

/** Path of repository control: load or unload a model. */
export function repositoryPath(name: string, action: 'load' | 'unload'): string {
  return `/v2/repository/models/${encodeURIComponent(name)}/${action}`;
}
