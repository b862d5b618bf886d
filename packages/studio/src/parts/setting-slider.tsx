/** A slider over the settings, from clean to the strongest. */
import type { JSX } from 'preact';
import { bundleOf, chooseSetting, settingId, settingName, settings } from '../story-state.js';

/** The slider of a slot. */
export function SettingSlider({ slot, label }: { readonly slot: 0 | 1; readonly label: string }): JSX.Element | null {
  const all = settings.value;
  const id = settingId(slot);
  if (id === undefined) return null;
  const at = all.indexOf(id);
  const ticks = all.map((setting) => {
    const bundle = bundleOf(setting);
    return bundle
      ? { group: settingName(setting).split(' ')[0], text: bundle.alpha.toFixed(2).replace(/^0/, '') }
      : { group: '', text: 'clean' };
  });
  return (
    <div class="slider">
      <label for={`setting-${slot}`}>
        {label}: <strong>{settingName(id)}</strong>
      </label>
      <input
        id={`setting-${slot}`}
        type="range"
        min={0}
        max={all.length - 1}
        step={1}
        value={at}
        aria-valuetext={settingName(id)}
        onInput={(event) => {
          const chosen = all[Number(event.currentTarget.value)];
          if (chosen !== undefined) chooseSetting(slot, chosen);
        }}
      />
      <ol class="ticks" aria-hidden="true">
        {ticks.map(({ group, text }, i) => (
          <li
            key={all[i]}
            class={i === at ? 'on' : undefined}
            data-group={group !== ticks[i - 1]?.group ? group : undefined}
          >
            {text}
          </li>
        ))}
      </ol>
    </div>
  );
}
