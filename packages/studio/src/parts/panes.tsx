/** The four panes of one setting: the photo, what left, what an attacker gets, the answer. They show one run, or none. */
import type { ComponentChildren, JSX } from 'preact';
import { useState } from 'preact/hooks';
import { camera } from '../camera.js';
import { bytes, count, dimensions, duration } from '../format.js';
import { cancelSlot, photo, runSlot, settingId, settingName, slots } from '../story-state.js';
import type { Run } from '../work/messages.js';
import { NextTurn } from './later.js';
import { Notice } from './notice.js';
import { Picture } from './picture.js';
import { RequestDialog } from './request-dialog.js';

/** The panes of a slot. */
export function Panes({ slot, title }: { readonly slot: 0 | 1; readonly title: boolean }): JSX.Element | null {
  const [isOpen, setOpen] = useState(false);
  const { working, run: runSignal, error } = slots[slot];
  const run = runSignal.value;
  const shown = photo.value;
  const id = settingId(slot);
  if (!shown || id === undefined) return null;
  const { width, height } = shown;
  const faces = run?.faces ?? [];
  const live = camera.value.on;
  const name = settingName(id);
  const request = run?.release?.request;
  const empty = (label: string, text: string): JSX.Element => (
    <div class="blank">
      <Picture label={label} bitmap={undefined} width={width} height={height} />
      <p>{text}</p>
    </div>
  );
  const pending = working.value ?? 'Not run yet';
  return (
    <section class="panes" aria-label={`Setting: ${name}`} aria-busy={working.value !== undefined}>
      {title && <h2 class="setting-name">{name}</h2>}
      {error.value !== undefined && <Notice error={error.value} onRetry={() => void runSlot(slot)} />}
      <div class={run && run.settingId !== id ? 'row stale' : 'row'}>
        <Pane where="in this tab" kind="trusted" title="The photo">
          <Picture
            label={`The photo with ${count(faces.length, 'box')}`.replace('boxs', 'boxes')}
            bitmap={shown.preview}
            width={width}
            height={height}
            faces={faces}
          />
          <p class="fact" role={live ? undefined : 'status'}>
            {run ? foundText(run) : pending}
          </p>
          {run && (
            <p class="more">
              {dimensions([width, height])}, read in {duration(run.timing.readMs)}, {run.release ? 'head' : 'model'}{' '}
              {duration(run.timing.headMs)}
            </p>
          )}
        </Pane>
        <NextTurn>
          <Pane where="on the wire" kind="wire" title="What left the tab">
            {run?.release ? (
              <Picture
                label={`The release: ${run.release.channels} channels of noise-covered activation as grey tiles`}
                bitmap={run.release.tiles}
                width={width}
                height={height}
                pixelated
                stretch
              />
            ) : (
              empty('Nothing to show', wireText(run, pending))
            )}
            {run?.release ? (
              <>
                <p class="fact">
                  {bytes(run.release.sentBytes)} of noisy activation, {dimensions(run.release.shape.slice(1))} numbers
                </p>
                <p class="more">
                  {request && (
                    <button type="button" class="link" onClick={() => setOpen(true)}>
                      Open the request
                    </button>
                  )}
                  <span>noise in {duration(run.timing.noiseMs)}</span>
                </p>
              </>
            ) : (
              <p class="fact">{run ? '0 bytes' : ' '}</p>
            )}
          </Pane>
        </NextTurn>
        <NextTurn>
          <Pane where="an attacker" kind="attacker" title="An attacker’s guess">
            {run?.guess ? (
              <Picture
                label="What an attacker rebuilds of the photo"
                bitmap={run.guess.picture}
                width={width}
                height={height}
                stretch
              />
            ) : (
              empty('Nothing to show', attackerText(run, pending))
            )}
            {run?.guess ? (
              <>
                <p class="fact">
                  Likeness to the photo {Math.max(0, run.guess.likeness).toFixed(2)}{' '}
                  <abbr title="structural similarity, 1 for the same picture">SSIM</abbr>
                </p>
                <p class="more">
                  {run.guess.attacker === 'decoder'
                    ? `by ${run.guess.training ?? 'a trained decoder'} of others, run in this tab; a larger one sees more`
                    : 'by a linear attacker, run in this tab; one with a trained network sees more'}
                </p>
              </>
            ) : (
              <p class="fact"> </p>
            )}
          </Pane>
        </NextTurn>
        <NextTurn>
          <Pane where={run && !run.release ? 'in this tab' : 'the server'} kind="server" title="The answer">
            {run ? (
              <Picture
                label={`The answer: ${count(faces.length, 'face')}`}
                bitmap={undefined}
                width={width}
                height={height}
                faces={faces}
                scores
              />
            ) : (
              empty('Nothing to show', pending)
            )}
            <p class="fact">{run ? answerText(run) : ' '}</p>
            {run && (
              <p class="more">
                {run.release ? `${bytes(run.release.receivedBytes)} in ${duration(run.timing.remoteMs)}; ` : ''}photo to
                boxes {duration(run.timing.totalMs)}
              </p>
            )}
          </Pane>
        </NextTurn>
      </div>
      {working.value !== undefined && !live && (
        <p class="working">
          <span class="spinner" aria-hidden="true" />
          {working.value}…
          {working.value === 'Waiting for the server' && (
            <button type="button" class="link" onClick={() => cancelSlot(slot)}>
              Cancel
            </button>
          )}
        </p>
      )}
      {isOpen && request && <RequestDialog request={request} onClose={() => setOpen(false)} />}
    </section>
  );
}

function Pane(props: {
  readonly where: string;
  readonly kind: string;
  readonly title: string;
  readonly children: ComponentChildren;
}): JSX.Element {
  return (
    <article class={`pane ${props.kind}`}>
      <h3>
        {props.title} <span class="where">{props.where}</span>
      </h3>
      {props.children}
    </article>
  );
}

function foundText(run: Run): string {
  if (!run.cleanFaces || !run.release) return `${count(run.faces.length, 'face')} found`;
  return `${count(run.faces.length, 'face')} found; without noise ${run.cleanFaces.length}`;
}

function answerText(run: Run): string {
  const found = count(run.faces.length, 'face');
  return run.release ? `${found}: places and scores, no picture` : `${found}, found here; no server was asked`;
}

function wireText(run: Run | undefined, pending: string): string {
  return run ? 'Nothing left. The clean setting runs the whole model in this tab.' : pending;
}

function attackerText(run: Run | undefined, pending: string): string {
  return run ? 'This bundle brings no attacker for photos of this size' : pending;
}
