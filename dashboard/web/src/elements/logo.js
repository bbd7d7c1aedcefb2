import { h } from '../core/dom.js';

/** The mark: a shield that is a mesh of three sites. */
export function logo() {
  return h('svg', { viewBox: '0 0 24 24', fill: 'none', stroke: 'currentColor', 'stroke-width': '1.8', 'stroke-linejoin': 'round', 'aria-hidden': 'true' },
    h('path', { d: 'M12 2 20 5v6.5c0 5-3.3 8.6-8 10.5-4.7-1.9-8-5.5-8-10.5V5z' }),
    h('path', { d: 'M12 8.2 8.6 14h6.8z', 'stroke-width': '1.3' }),
    h('circle', { cx: 12, cy: 8, r: 1.8, fill: 'currentColor', stroke: 'none' }),
    h('circle', { cx: 8.4, cy: 14.2, r: 1.8, fill: 'currentColor', stroke: 'none' }),
    h('circle', { cx: 15.6, cy: 14.2, r: 1.8, fill: 'currentColor', stroke: 'none' }));
}
