export enum Part {
  Morning,
  Afternoon,
  Evening,
}

export type Greeting = { message: string; part: Part };

export const partOf = (hour: number): Part => (hour < 12 ? Part.Morning : hour < 18 ? Part.Afternoon : Part.Evening);
