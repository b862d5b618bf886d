/** What was measured and what is proven of the current setting, apart, each with its conditions. */
import type { JSX } from 'preact';
import { tradeOffs, VACUOUS_NATS } from '../figures/figures.js';
import { settingId, settingName, settings } from '../story-state.js';
import { Scrollable } from './scrollable.js';

/** Both boxes, and the table behind the chart. */
export function FiguresPanel(): JSX.Element {
  const rows = tradeOffs();
  const ids = [settingId(0), settingId(1)].filter((id) => id !== undefined);
  const chosen = rows.filter(({ id }) => ids.includes(id));
  const measured = chosen.flatMap(({ id, accuracy, attacker }) =>
    [accuracy, attacker].flatMap((figure) => (figure ? [{ id, figure }] : [])),
  );
  const proven = chosen.flatMap(({ id, proven: figures }) => figures.map((figure) => ({ id, figure })));
  const several = ids.length > 1;
  return (
    <div class="figures">
      <section class="measured" aria-labelledby="measured-title">
        <h3 id="measured-title">Measured</h3>
        {measured.length === 0 && <p>Nothing yet.</p>}
        <dl>
          {measured.map(({ id, figure }) => (
            <div key={`${id} ${figure.name}`}>
              <dt>
                {several && `${settingName(id)}: `}
                {figure.name}
              </dt>
              <dd>
                <strong>{figure.value.toFixed(3)}</strong>
                {figure.sd !== undefined && ` ± ${figure.sd.toFixed(3)}`}
                <span class="conditions">
                  {figure.data}
                  {figure.runs ? `; ${figure.runs} draws of noise` : ''}
                </span>
              </dd>
            </div>
          ))}
        </dl>
      </section>
      <section class="proven" aria-labelledby="proven-title">
        <h3 id="proven-title">Proven</h3>
        {proven.length === 0 && (
          <p>Nothing. {ids.includes('clean') ? 'Nothing leaves the tab at the clean setting.' : ''}</p>
        )}
        <dl>
          {proven.map(({ id, figure }) => (
            <div key={`${id} ${figure.name}`}>
              <dt>
                {several && `${settingName(id)}: `}
                {figure.name}
              </dt>
              <dd>
                <strong>
                  at most {figure.value.toLocaleString('en', { maximumSignificantDigits: 5 })} {figure.unit}
                </strong>
                {figure.unit === 'nats' && figure.value > VACUOUS_NATS && (
                  <span class="vacuous">
                    Vacuous for a single photo: with more than {VACUOUS_NATS.toFixed(0)} nats one person can be told
                    from a million. It shows that more noise tells less, and promises no more.
                  </span>
                )}
                <span class="conditions">if {figure.assumptions.join('; ')}</span>
              </dd>
            </div>
          ))}
        </dl>
      </section>
      <details>
        <summary>All {settings.value.length} settings as a table</summary>
        <Scrollable label="All settings">
          <table>
            <thead>
              <tr>
                <th scope="col">setting</th>
                <th scope="col">AP, measured</th>
                <th scope="col">attacker’s SSIM, measured</th>
                <th scope="col">nats, proven</th>
              </tr>
            </thead>
            <tbody>
              {rows.map(({ id, accuracy, attacker, proven: bounds }) => (
                <tr key={id} aria-current={ids.includes(id) ? 'true' : undefined}>
                  <th scope="row">{settingName(id)}</th>
                  <td>{accuracy?.value.toFixed(3) ?? 'not measured'}</td>
                  <td>{attacker?.value.toFixed(3) ?? 'not measured'}</td>
                  <td>{bounds[0] ? `≤ ${Math.round(bounds[0].value).toLocaleString('en')}` : 'no bound'}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </Scrollable>
      </details>
    </div>
  );
}
