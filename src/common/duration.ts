/** Docker's rough durations: "Less than a second", "About a minute", "3 weeks". */
export function humanDuration(ms: number): string {
  const s = Math.floor(ms / 1000)
  if (s < 1) return 'Less than a second'
  if (s === 1) return '1 second'
  if (s < 60) return `${s} seconds`
  const min = Math.floor(s / 60)
  if (min === 1) return 'About a minute'
  if (min < 60) return `${min} minutes`
  const h = Math.round(s / 3600)
  if (h === 1) return 'About an hour'
  if (h < 48) return `${h} hours`
  if (h < 24 * 14) return `${Math.floor(h / 24)} days`
  if (h < 24 * 60) return `${Math.floor(h / 24 / 7)} weeks`
  if (h < 24 * 365 * 2) return `${Math.floor(h / 24 / 30)} months`
  return `${Math.floor(h / 24 / 365)} years`
}
