/** The story: a photo, what leaves of it at one setting or two, what an attacker gets, the answer. */
import { type Signal, signal } from '@preact/signals';
import type { JSX } from 'preact';
import { ScrimError } from 'scrim';
import { FiguresPanel } from '../parts/figures-panel.js';
import { fetchAhead, NextTurn } from '../parts/later.js';
import { Notice } from '../parts/notice.js';
import { Panes } from '../parts/panes.js';
import { PhotoSource } from '../parts/photo-source.js';
import { SettingSlider } from '../parts/setting-slider.js';
import { TradeOffChart } from '../parts/trade-off-chart.js';
import { catalogue, catalogueError, loadCatalogue, photo, setComparing, settingId, slots } from '../story-state.js';

const saveError: Signal<unknown> = signal(undefined);

const loadSave = (): Promise<typeof import('../save.js')> => import('../save.js');
fetchAhead(loadSave);

async function saveWith(use: (save: typeof import('../save.js')) => void | Promise<void>): Promise<void> {
  saveError.value = undefined;
  try {
    await use(await loadSave());
  } catch (error) {
    saveError.value = ScrimError.from(error, 'UNAVAILABLE', 'what makes the download can not be fetched');
  }
}

/** The page. */
export function StoryPage(): JSX.Element {
  const comparing = settingId(1) !== undefined;
  const shown = photo.value;
  const runs = slots.map(({ run }) => run.value).filter((run) => run !== undefined);
  return (
    <>
      <div class="intro">
        <h1>The photo stays in this tab</h1>
        <p>
          A part of the network runs here and noise is added to what it makes of the photo. Only that leaves. A server
          finds the faces in it without having seen them. Move the slider to trade accuracy against what an attacker
          gets.
        </p>
      </div>
      {catalogueError.value !== undefined && (
        <Notice error={catalogueError.value} onRetry={() => void loadCatalogue()} />
      )}
      {catalogue.value && <PhotoSource />}
      {shown && (
        <>
          <Panes slot={0} title={comparing} />
          {comparing && <Panes slot={1} title />}
          <NextTurn>
            <section class="controls" aria-label="Setting">
              <div class="sliders">
                <SettingSlider slot={0} label={comparing ? 'First setting' : 'Setting'} />
                {comparing && <SettingSlider slot={1} label="Second setting" />}
              </div>
            </section>
            <div class="buttons actions">
              <label class="switch">
                <input
                  type="checkbox"
                  checked={comparing}
                  onChange={(event) => setComparing(event.currentTarget.checked)}
                />
                Compare two settings
              </label>
              <button
                type="button"
                disabled={runs.length === 0}
                onClick={() => void saveWith(({ savePictures }) => savePictures(shown, runs))}
              >
                Download pictures
              </button>
              <button
                type="button"
                disabled={runs.length === 0}
                onClick={() => void saveWith(({ saveRecord }) => saveRecord(shown, runs))}
              >
                Download record
              </button>
            </div>
            {saveError.value !== undefined && <Notice error={saveError.value} />}
            <section class="trade-off" aria-labelledby="trade-off-title">
              <h2 id="trade-off-title">Accuracy against what an attacker gets</h2>
              <div class="columns">
                <TradeOffChart />
                <FiguresPanel />
              </div>
            </section>
          </NextTurn>
        </>
      )}
      <p class="engine">{runs[0] ? `Engine in this tab: ${runs[0].engine}` : ''}</p>
    </>
  );
}
