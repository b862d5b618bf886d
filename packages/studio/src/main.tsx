/** The studio: three pages under one frame. */
import { type JSX, render } from 'preact';
import { useEffect } from 'preact/hooks';
import { stopCamera } from './camera.js';
import { StoryPage } from './pages/story-page.js';
import { loadedLater } from './parts/later.js';
import { followAddress, go, linkTo, route, type View } from './route.js';
import { applyAddress, loadCatalogue } from './story-state.js';
import './style.css';

const PAGES: readonly { readonly view: View; readonly name: string }[] = [
  { view: 'story', name: 'Story' },
  { view: 'server', name: 'Server' },
  { view: 'report', name: 'Audit report' },
];

const ServerPage = loadedLater(async () => (await import('./pages/server-page.js')).ServerPage);
const ReportPage = loadedLater(async () => (await import('./pages/report-page.js')).ReportPage);

function Studio(): JSX.Element {
  const { view } = route.value;
  useEffect(() => {
    document.title = `${PAGES.find((page) => page.view === view)?.name ?? ''} · Scrim studio`;
  }, [view]);
  return (
    <>
      <button type="button" class="skip" onClick={focusMain}>
        Skip to the content
      </button>
      <header class="top">
        <p class="brand">
          <svg viewBox="0 0 24 24" aria-hidden="true">
            <path d="M3 4h18M5 4v15M8.5 4v12M12 4v15M15.5 4v12M19 4v15" />
          </svg>
          Scrim studio
        </p>
        <nav aria-label="Pages">
          {PAGES.map((page) => (
            <a
              key={page.view}
              href={linkTo(page.view)}
              aria-current={page.view === view ? 'page' : undefined}
              onClick={(event) => {
                event.preventDefault();
                go({ view: page.view }, true);
              }}
            >
              {page.name}
            </a>
          ))}
        </nav>
      </header>
      <main id="main" tabIndex={-1}>
        {view === 'story' && <StoryPage />}
        {view === 'server' && <ServerPage />}
        {view === 'report' && <ReportPage />}
      </main>
      <footer>Nothing on this page is loaded from anywhere else, and nothing is counted.</footer>
    </>
  );
}

function focusMain(): void {
  document.getElementById('main')?.focus();
}

followAddress((before) => {
  // A photo that the address names takes the camera's place.
  if (route.value.photo !== before.photo) void stopCamera(false);
  void applyAddress(before);
});
// In a turn of its own: with the evaluation of all this code it would be one long task.
setTimeout(() => render(<Studio />, document.getElementById('studio') as HTMLElement));
void loadCatalogue();
